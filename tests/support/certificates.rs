//! Certificates of an authority of the test's own, made with openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder with an authority and what it certifies.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Makes an authority: `NAME.pem` and `NAME.key` in the folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        let authority = Self { folder: folder.join(name) };
        fs::create_dir_all(&authority.folder).unwrap();
        authority.openssl(
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
            &[
                "-days",
                "2",
                "-subj",
                &format!("/CN=leakslope test {name}"),
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
            ],
        );
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Certifies somebody for 127.0.0.1 and localhost, as server and as client; the certificate and its key.
    pub fn certify(&self, name: &str) -> (PathBuf, PathBuf) {
        self.certify_as(name, "IP:127.0.0.1,DNS:localhost")
    }

    /// The same with other names, as OpenSSL writes them.
    pub fn certify_as(&self, name: &str, alternative_names: &str) -> (PathBuf, PathBuf) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        self.openssl(
            &["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
            &["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &request],
        );
        let extensions = format!("subjectAltName={alternative_names}\nbasicConstraints=CA:FALSE\n");
        fs::write(self.folder.join("extensions"), extensions).unwrap();
        self.openssl(
            &["x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"],
            &["-extfile", "extensions", "-in", &request, "-out", &certificate],
        );
        (self.folder.join(certificate), self.folder.join(key))
    }

    fn openssl(&self, what: &[&str], more: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(what).args(more).current_dir(&self.folder).stdin(Stdio::null());
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("openssl does not start ({error}): run `apt-get install openssl`"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
