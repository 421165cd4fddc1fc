//! The web configuration beside Prometheus' own reader of it: what promtool takes is taken, what it refuses is refused, and
//! where this one is stricter, it is so on purpose and the document says so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::certificates::Authority;
use crate::support::sidecar::Place;

const HASH: &str = "$2b$04$5i1qbbO9lo5P8M.MSs4nYOj4bFoCVkxMl0UzHgqBGn1h.1SV6IDQS";

/// Lines below `tls_server_config` beside a certificate and its key, and whole files, which begin with the name of a table;
/// `AUTHORITY` is a file and `HASH` a hash.
const TAKEN_BY_BOTH: &[&str] = &[
    "client_auth_type: NoClientCert",
    "client_auth_type: RequestClientCert",
    "client_auth_type: RequireClientCert",
    "client_auth_type: RequireAnyClientCert",
    "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: AUTHORITY",
    "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: AUTHORITY",
    "min_version: TLS12\n  max_version: TLS12",
    "min_version: TLS13",
    "cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
    "cipher_suites:\n    - TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "curve_preferences: [X25519, CurveP256, CurveP384]",
    "prefer_server_cipher_suites: false",
    "http_server_config:\n  http2: false",
    "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=1",
    "http_server_config:\n  headers:\n    X-Content-Type-Options: nosniff\n    X-Frame-Options: sameorigin",
    "http_server_config:\n  headers:\n    X-XSS-Protection: '1'\n    Content-Security-Policy: default-src 'self'",
    "basic_auth_users:\n  ops: HASH",
    "basic_auth_users:\n  '5': HASH",
    "basic_auth_users:",
];

const REFUSED_BY_BOTH: &[&str] = &[
    "client_auth_type: Anybody",
    "client_auth_type: NoClientCert\n  client_ca_file: AUTHORITY",
    "client_ca_file: AUTHORITY",
    "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: nowhere.pem",
    "min_version: SSL3",
    "cipher_suites: [TLS_NONE]",
    "curve_preferences: [CurveP1]",
    "prefer_server_cipher_suites: perhaps",
    "certificate: a.pem",
    "nonsense:\n  a: b",
    "tls_server_config:\n  cert_file: AUTHORITY",
    "http_server_config:\n  http3: true",
    "http_server_config:\n  headers:\n    Server: me",
    "http_server_config:\n  headers:\n    X-Frame-Options: never",
    "basic_auth_users:\n  ops: hunter2",
    "basic_auth_users:\n  ops: HASH\n  ops: HASH",
    "basic_auth_users: [HASH]",
];

/// Each stands in docs/web.md.
const TAKEN_BY_PROMETHEUS_ALONE: &[&str] = &[
    "client_auth_type: RequireAndVerifyClientCert",
    "client_auth_type: RequireAnyClientCert\n  client_ca_file: AUTHORITY",
    "min_version: TLS11",
    "min_version: TLS13\n  max_version: TLS12",
    "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]",
    "curve_preferences: [CurveP521]",
    "tls_server_config:\n  min_version: TLS13",
    "basic_auth_users:\n  ops: $2b$18$5i1qbbO9lo5P8M.MSs4nYOj4bFoCVkxMl0UzHgqBGn1h.1SV6IDQS",
];

/// Newer than the promtool of Debian 12, which knows none of these keys.
const TAKEN_HERE: &[&str] = &[
    "client_auth_type: VerifyClientCertIfGiven\n  client_ca: INLINE",
    "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: AUTHORITY\n  client_allowed_sans: [ops, ops@example.org]",
    "rate_limit:\n  interval: 1m30s\n  burst: 5",
    "rate_limit:\n  interval: 0",
];

#[test]
fn what_prometheus_takes_is_taken_and_what_it_refuses_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (certificate, key) = authority.certify("server");
    let place = Place::new(folder.path(), "");
    let file = folder.path().join("web.yml");
    let inline = format!("{:?}", fs::read_to_string(authority.certificate()).unwrap());
    let write = |case: &str| {
        let tables = ["tls_server_config", "http_server_config", "basic_auth_users", "rate_limit", "nonsense"];
        let whole = tables.iter().any(|table| case.starts_with(table));
        let server =
            format!("tls_server_config:\n  cert_file: {}\n  key_file: {}\n  ", certificate.display(), key.display());
        let text = format!("{}{case}\n", if whole { "" } else { &server });
        let text = text.replace("AUTHORITY", &authority.certificate().display().to_string());
        fs::write(&file, text.replace("INLINE", &inline).replace("HASH", HASH)).unwrap();
    };
    let ours = || {
        let output = place.run(&["check-config", "--web.config.file", &file.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 64)), "{said}");
        if output.status.success() { Ok(()) } else { Err(said) }
    };
    for (cases, theirs_take, ours_take) in
        [(TAKEN_BY_BOTH, true, true), (REFUSED_BY_BOTH, false, false), (TAKEN_BY_PROMETHEUS_ALONE, true, false)]
    {
        for case in cases {
            write(case);
            let theirs = promtool(&file);
            assert_eq!(theirs.is_ok(), theirs_take, "promtool and {case}: {theirs:?}");
            let ours = ours();
            assert_eq!(ours.is_ok(), ours_take, "leakslope and {case}: {ours:?}");
        }
    }
    for case in TAKEN_HERE {
        write(case);
        assert_eq!(ours(), Ok(()), "{case}");
    }
}

fn promtool(file: &Path) -> Result<(), String> {
    let output = Command::new("promtool").args(["check", "web-config"]).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}: run `apt-get install prometheus`"));
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}
