//! Tests of the list: real bodies of three pm2 versions, hostile entries, and environments full of secrets.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const BODIES: [(&str, &str); 3] = [
    ("5", include_str!("../../tests/fixtures/jlist-pm2-5.json")),
    ("6", include_str!("../../tests/fixtures/jlist-pm2-6.json")),
    ("7", include_str!("../../tests/fixtures/jlist-pm2-7.json")),
];

fn list(json: &str) -> ProcessList {
    read_list(json.as_bytes(), 5000).unwrap()
}

fn one(entry: &serde_json::Value) -> Listed {
    let mut list = list(&json!([entry]).to_string());
    assert_eq!((list.entries.len(), list.left_out()), (1, 0), "{entry}");
    list.entries.remove(0)
}

#[test]
fn real_bodies_of_every_version_read_the_same() {
    for (version, body) in BODIES {
        let list = list(body);
        assert_eq!(list.left_out(), 0);
        let told: Vec<_> = list
            .entries
            .iter()
            .map(|entry| (entry.pm_id, entry.app.name(), entry.status, entry.exec_mode, entry.pid.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                (0, "web", Status::Online, "fork", true),
                (1, "leaky", Status::Online, "fork", true),
                (2, "api", Status::Online, "cluster", true),
                (3, "nopmx", Status::Online, "fork", true),
                (4, "crasher", Status::Errored, "fork", false),
                (5, "stopped-app", Status::Stopped, "fork", false),
                (6, "slowboot", Status::Online, "cluster", true),
                (7, "api", Status::Online, "cluster", true),
                (8, "backoff", Status::WaitingRestart, "fork", true),
                (9, "pyapp", Status::Online, "fork", true),
            ],
            "pm2 {version}"
        );
        let [web, leaky, _, nopmx, crasher, _, _, api, backoff, pyapp] = &list.entries[..] else {
            panic!("ten entries")
        };
        assert_eq!(web.app.namespace(), "front", "pm2 {version}");
        assert_eq!(web.max_memory_restart, Some(Bytes(314_572_800)));
        assert_eq!(web.max_old_space, Some(Bytes(256 << 20)));
        assert_eq!(web.node_version.as_deref(), Some("20.20.2"));
        assert_eq!((web.version.as_deref(), web.interpreter.as_deref()), (None, Some("node")));
        assert!(web.metrics.heap_used.is_some_and(|heap| heap < Bytes(8 << 20)));
        assert!(leaky.metrics.heap_used.is_some_and(|heap| heap > Bytes(80 << 20)));
        assert!(leaky.metrics.event_loop_p95_seconds.is_some_and(|latency| latency < 0.1));
        assert!((!nopmx.pmx, nopmx.metrics.heap_used.is_none()) == (true, true));
        assert!(crasher.restarts.is_some_and(|restarts| restarts > 0));
        assert_eq!((crasher.life(), backoff.life()), (None, None), "no life without a live pid");
        assert_eq!(api.instance, Some(1));
        assert_eq!((pyapp.interpreter.as_deref(), pyapp.node_version.as_deref()), (Some("python3"), None));
        assert!(pyapp.monit_memory.is_some() && pyapp.life().is_some());
    }
}

#[test]
fn the_reply_wraps_the_same_list() {
    for (version, body) in BODIES {
        let reply = format!(r#"{{"args":[{body}]}}"#);
        assert_eq!(read_reply(reply.as_bytes(), 5000).unwrap(), list(body), "pm2 {version}");
    }
    assert_eq!(read_version(br#"{"args":["7.0.4"]}"#).unwrap(), "7.0.4");
}

#[test]
fn what_is_no_list_says_why_without_quoting() {
    let cases: [(&str, &str); 9] = [
        ("", "the reply of 0 bytes is not JSON from byte 0 on"),
        ("hunter2", "the reply of 7 bytes is not JSON from byte 1 on"),
        (r#"{"args":[[{"pid":"hunter2"}"#, "the reply of 27 bytes is not JSON from byte 27 on"),
        ("{\n\n\"args\" hunter2}", "the reply of 18 bytes is not JSON from byte 11 on"),
        (
            r#"{"error":"hunter2","stack":"hunter2"}"#,
            "the daemon answered with an error (its text of 9 bytes is withheld, as it may hold secrets)",
        ),
        (r#""hunter2""#, "the reply is JSON but holds no arguments"),
        (r#"{"args":"hunter2"}"#, "the reply is JSON but holds no arguments"),
        (r#"{"args":[]}"#, "the reply is JSON but holds no arguments"),
        (r#"{"args":["hunter2"]}"#, "the reply is JSON but holds no process list"),
    ];
    for (text, expected) in cases {
        let error = read_reply(text.as_bytes(), 10).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    assert_eq!(read_version(br#"{"args":["<b>hunter 2</b>"]}"#), Err(ListError::Shape { expected: "version" }));
}

#[test]
fn an_environment_that_overwrites_pm2s_fields_costs_only_those() {
    let entry = one(&json!({
        "pid": 4321, "name": "web", "pm_id": 0, "monit": {"memory": "lots", "cpu": null},
        "pm2_env": {
            "status": "online", "pm_uptime": 1_795_393_485_552_u64, "exec_mode": "weird", "max_memory_restart": "5K",
            "namespace": {"a": 1}, "restart_time": "3", "unstable_restarts": [], "version": 7, "node_version": false,
            "pmx": "false", "NODE_APP_INSTANCE": "2", "node_args": "--max_old_space_size 512", "wait_ready": "yes",
            "kill_timeout": "1600", "axm_monitor": "none", "versioning": {"revision": "https://user:token@host", "url": "x"},
            "exec_interpreter": "/usr/local/bin/node",
        }
    }));
    assert_eq!((entry.pm_id, entry.app.name(), entry.pid, entry.status), (0, "web", Some(4321), Status::Online));
    assert_eq!((entry.exec_mode, entry.max_memory_restart, entry.app.namespace()), ("unknown", None, "default"));
    assert_eq!((entry.restarts, entry.unstable_restarts), (Some(3), None));
    assert_eq!((entry.version, entry.node_version, entry.revision), (None, None, None));
    assert_eq!((entry.pmx, entry.instance, entry.wait_ready), (false, Some(2), false));
    assert_eq!((entry.max_old_space, entry.kill_timeout_ms), (Some(Bytes(512 << 20)), Some(1600)));
    assert_eq!((entry.monit_memory, entry.monit_cpu_percent), (None, None));
    assert_eq!(entry.interpreter.as_deref(), Some("node"));
    assert_eq!(entry.metrics, model::AppMetrics::default());
}

#[test]
fn entries_are_read_alone_sorted_and_counted() {
    let body = json!([
        {"pm_id": 3, "name": "c"}, null, 7, "text", [], {}, {"pm_id": "x"}, {"pm_id": -1}, {"pm_id": 5_000_000_000_u64},
        {"pm_id": 0, "name": "a"}, {"pm_id": 3, "name": "again"}, {"name": "inner", "pm2_env": {"pm_id": 2}},
        {"pm_id": 9, "pm2_env": null, "monit": 3, "pid": -4}, {"pm_id": 10, "name": ""}, {"pm_id": 11},
    ]);
    let list = read_list(body.to_string().as_bytes(), 5).unwrap();
    let told: Vec<_> = list.entries.iter().map(|entry| (entry.pm_id, entry.app.name(), entry.status)).collect();
    assert_eq!(
        told,
        [
            (0, "a", Status::Unknown),
            (2, "inner", Status::Unknown),
            (3, "c", Status::Unknown),
            (9, "9", Status::Unknown),
            (10, "10", Status::Unknown),
        ]
    );
    assert_eq!((list.over_limit, list.unreadable, list.repeated), (1, 8, 1));
}

#[test]
fn the_heap_limit_is_found_among_the_arguments() {
    for (arguments, options, expected) in [
        (json!(["--max-old-space-size=256"]), json!(null), Some(256)),
        (json!(["--max_old_space_size", "300"]), json!(null), Some(300)),
        (json!(["--inspect --max-old-space-size=100"]), json!(null), Some(100)),
        (json!(["--max-old-space-size=1", "--max-old-space-size=2"]), json!(null), Some(2)),
        (json!([]), json!("--enable-source-maps --max-old-space-size=64"), Some(64)),
        (json!(["--max-old-space-size=9"]), json!("--max-old-space-size=64"), Some(9)),
        (json!(["--max-old-space-size=much", 7]), json!({}), None),
        (json!(["--max-old-space-size"]), json!(null), None),
        (json!(null), json!(null), None),
    ] {
        let entry = json!({"pm_id": 1, "pm2_env": {"node_args": arguments, "NODE_OPTIONS": options}});
        assert_eq!(one(&entry).max_old_space, expected.map(|size: u64| Bytes(size << 20)), "{entry}");
    }
}

#[test]
fn secrets_do_not_get_past_the_parser() {
    let secret = "hunter2-s3cr3t";
    for (_, body) in BODIES {
        let mut body: serde_json::Value = serde_json::from_str(body).unwrap();
        for entry in body.as_array_mut().unwrap() {
            let environment = entry["pm2_env"].as_object_mut().unwrap();
            for name in ["DATABASE_URL", "TOKEN", "npm_config_token", "args", "pm_exec_path", "pm_cwd", "username"] {
                environment.insert(name.to_owned(), json!(format!("postgres://u:{secret}@db/{secret}")));
            }
            environment.insert("env".to_owned(), json!({"TOKEN": secret, "axm_monitor": {secret: {"value": 1}}}));
            environment.insert("node_args".to_owned(), json!([format!("--secret={secret}"), "--max-old-space-size=9"]));
            environment.insert("NODE_OPTIONS".to_owned(), json!(format!("--require {secret}")));
            environment.insert("versioning".to_owned(), json!({"url": secret, "revision": secret, "comment": secret}));
            environment.insert("axm_options".to_owned(), json!({"module_conf": {"token": secret}}));
            environment.insert("status".to_owned(), json!(secret));
            environment.insert("exec_mode".to_owned(), json!(secret));
        }
        let list = list(&body.to_string());
        assert_eq!((list.entries.len(), list.entries[0].max_old_space), (10, Some(Bytes(9 << 20))));
        assert!(!format!("{list:?}").contains(secret));
        assert!(!serde_json::to_string(&list.entries).unwrap().contains(secret));
    }
}

#[test]
fn deep_nesting_and_bad_encodings_harm_nobody() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let body = format!(r#"[{{"pm_id":1,"name":"a","pm2_env":{{"x":{deep},"namespace":"n"}}}}]"#);
    assert_eq!(list(&body).entries[0].app.namespace(), "n");
    let body = r#"[{"pm_id":1,"name":"a\ud800","\udfff":1,"pm2_env":{"\ud800":"\ud800","axm_monitor":{"\ud800":{"value":1}}}}]"#;
    assert_eq!(list(body).entries[0].metrics.custom.len(), 1);
    let body = [b"[{\"pm_id\":1,\"name\":\"a".as_slice(), &[0xff], b"\"}]"].concat();
    assert_eq!(read_list(&body, 10), Err(ListError::NotJson { offset: 21, length: 25 }));
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|flag| json!(flag)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        "[ -~]{0,12}".prop_map(|text| json!(text)),
        "[0-9.]{1,6} ?[A-Za-z%/]{0,6}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
            prop::collection::btree_map("value|unit|type|[a-z]{1,4}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn any_values_in_the_known_fields_cost_no_entry(
        values in prop::collection::vec(any_json(), ENVIRONMENT.all().len()),
        metrics in prop::collection::btree_map("[a-z]{1,4}", any_json(), 0..6),
        outer in prop::collection::vec(any_json(), 3),
    ) {
        let mut environment: serde_json::Map<_, _> =
            ENVIRONMENT.all().iter().map(|name| (*name).to_owned()).zip(values).collect();
        environment.insert("axm_monitor".to_owned(), json!(metrics));
        let entry = json!({"pm_id": 7, "pid": outer[0], "name": outer[1], "monit": outer[2], "pm2_env": environment});
        let other = json!({"pm_id": 8, "name": "other"});
        let list = list(&json!([entry, other]).to_string());
        prop_assert_eq!(list.entries.len(), 2);
        prop_assert_eq!(list.entries[1].app.name(), "other");
        for metric in &list.entries[0].metrics.custom {
            prop_assert!(metric.value.is_finite());
        }
    }

    #[test]
    fn a_reply_reads_the_same_in_whatever_pieces_it_arrives(
        pieces in prop::collection::vec(1_usize..4000, 1..40), limit in 0_usize..5, broken in 0_usize..40_000, how in 0_u8..4,
    ) {
        let mut reply = format!(r#"{{"args":[{}]}}"#, BODIES[2].1.trim_end()).into_bytes();
        let place = broken.min(reply.len() - 1);
        match how {
            0 => reply.truncate(place),
            1 => reply[place] = 0xff,
            2 => reply[place] = b'}',
            _ => {}
        }
        let mut arriving = ArrivingReply::new(limit);
        let mut rest = &reply[..];
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            arriving.push(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(arriving.finish(), read_reply(&reply, limit));
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_list(&bytes, 10);
        let _ = read_reply(&bytes, 10);
        let _ = read_version(&bytes);
        let mut arriving = ArrivingReply::new(10);
        for byte in &bytes {
            arriving.push(&[*byte]);
        }
        prop_assert_eq!(arriving.finish(), read_reply(&bytes, 10));
    }

    #[test]
    fn a_body_cut_anywhere_is_an_error_and_not_a_panic(cut in 0usize..20_000) {
        let body = BODIES[2].1.trim_end().as_bytes();
        prop_assert!(read_list(&body[..cut.min(body.len() - 1)], 10).is_err());
    }
}
