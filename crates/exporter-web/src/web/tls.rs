//! `tls_server_config`: what a handshake goes by. Pure: the files are only named.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClientCertificates, Curve, Node, Pem, PemSource, Reader, SUITES, TlsSettings, TlsVersion, dotted};

/// The words for versions of TLS.
const VERSIONS: [(&str, TlsVersion); 2] = [("TLS12", TlsVersion::Tls12), ("TLS13", TlsVersion::Tls13)];
/// The words for groups of key exchange.
const CURVES: [(&str, Curve); 3] = [("X25519", Curve::X25519), ("CurveP256", Curve::P256), ("CurveP384", Curve::P384)];
/// The suites of TLS 1.3, which are always on, as they are with Go.
const SUITES_13: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// The words for what is asked of clients. `RequireClientCert` is an older name.
const CLIENTS: [(&str, ClientCertificates); 6] = [
    ("NoClientCert", ClientCertificates::None),
    ("RequestClientCert", ClientCertificates::Requested),
    ("RequireClientCert", ClientCertificates::Any),
    ("RequireAnyClientCert", ClientCertificates::Any),
    ("VerifyClientCertIfGiven", ClientCertificates::IfGiven),
    ("RequireAndVerifyClientCert", ClientCertificates::Required),
];

/// The entries of a table by their names.
type Table<'a> = BTreeMap<&'static str, &'a Node>;

impl Reader<'_> {
    pub(super) fn tls(&mut self, node: &Node) -> Option<TlsSettings> {
        let at = "tls_server_config";
        let names = [
            "cert",
            "cert_file",
            "cipher_suites",
            "client_allowed_sans",
            "client_auth_type",
            "client_ca",
            "client_ca_file",
            "curve_preferences",
            "key",
            "key_file",
            "max_version",
            "min_version",
            "prefer_server_cipher_suites",
        ];
        let table = self.table(node, at, &names);
        if table.is_empty() {
            return None;
        }
        let of = |name: &'static str| table.get(name).copied();
        let certificate = self.pem(&table, "tls_server_config.cert_file", "tls_server_config.cert");
        let key = self.pem(&table, "tls_server_config.key_file", "tls_server_config.key");
        for (found, name) in [(certificate.is_some(), "cert_file"), (key.is_some(), "key_file")] {
            let tried = of(name).is_some() || of(name.trim_end_matches("_file")).is_some();
            if !found && !tried {
                self.report(node.place(), &dotted(at, name), "is missing, and encryption needs it");
            }
        }
        let (clients, client_authorities, client_names) = self.clients(node, &table);
        let mut version =
            |name, usual| of(name).and_then(|node| self.word(node, &dotted(at, name), &VERSIONS)).unwrap_or(usual);
        let versions = (version("min_version", TlsVersion::Tls12), version("max_version", TlsVersion::Tls13));
        if versions.0 > versions.1 {
            let place = of("max_version").map_or(node.place(), Node::place);
            self.report(place, "tls_server_config.max_version", "is below min_version");
        }
        let suites = of("cipher_suites").map(|node| self.suites(node)).unwrap_or_default();
        let curves = of("curve_preferences")
            .map(|node| self.words(node, "tls_server_config.curve_preferences", &CURVES))
            .unwrap_or_default();
        let our_order = of("prefer_server_cipher_suites")
            .is_none_or(|node| self.flag(node, "tls_server_config.prefer_server_cipher_suites"));
        Some(TlsSettings {
            certificate: certificate?,
            key: key?,
            clients,
            client_authorities,
            client_names,
            versions,
            suites,
            curves,
            our_order,
        })
    }

    fn suites(&mut self, node: &Node) -> Vec<&'static str> {
        let known: Vec<_> = SUITES.iter().chain(&SUITES_13).map(|suite| (*suite, *suite)).collect();
        let mut chosen = self.words(node, "tls_server_config.cipher_suites", &known);
        chosen.retain(|suite| SUITES.contains(suite));
        chosen
    }

    /// Who is let in by a certificate.
    fn clients(&mut self, node: &Node, table: &Table<'_>) -> (ClientCertificates, Option<Pem>, BTreeSet<String>) {
        let at = "tls_server_config.client_auth_type";
        let authorities = self.pem(table, "tls_server_config.client_ca_file", "tls_server_config.client_ca");
        let word = table.get("client_auth_type").copied();
        let clients = word.map_or(Some(ClientCertificates::None), |word| self.word(word, at, &CLIENTS));
        let names = table.get("client_allowed_sans").map(|names| (names.place(), self.names(names)));
        let found = names.as_ref().map(|(_, names)| names.clone()).unwrap_or_default();
        // A word that is none is a problem of its own.
        let Some(clients) = clients else { return (ClientCertificates::Required, authorities, found) };
        let checked = matches!(clients, ClientCertificates::IfGiven | ClientCertificates::Required);
        let authorities_at = table.get("client_ca_file").or(table.get("client_ca")).map(|node| node.place());
        match authorities_at {
            Some(place) if !checked => {
                let message =
                    "is set, and by client_auth_type no certificate is checked: RequireAndVerifyClientCert does";
                self.report(place, "tls_server_config.client_ca_file", message);
            }
            None if checked => {
                let message = "needs client_ca_file: nobody could have signed the certificates of clients";
                self.report(word.map_or(node.place(), Node::place), at, message);
            }
            Some(_) | None => {}
        }
        if let Some((place, names)) = names {
            let message = if names.is_empty() {
                "names nobody, so nobody would be let in"
            } else {
                "is set, and by client_auth_type no certificate is checked: a name in it proves nothing"
            };
            if names.is_empty() || !checked {
                self.report(place, "tls_server_config.client_allowed_sans", message);
            }
        }
        (clients, authorities, found)
    }

    /// The names that certificates of clients may have.
    fn names(&mut self, node: &Node) -> BTreeSet<String> {
        let key = "tls_server_config.client_allowed_sans";
        let Node::List(_, items) = node else {
            self.report(node.place(), key, "a list is needed here");
            return BTreeSet::new();
        };
        items.iter().filter_map(|item| self.text(item, key).map(str::to_owned)).collect()
    }

    /// A text in PEM that is given as a file or inline, but not both.
    fn pem(&mut self, table: &Table<'_>, file_key: &'static str, inline_key: &'static str) -> Option<Pem> {
        let file = last(file_key);
        match (table.get(file), table.get(last(inline_key))) {
            (Some(node), None) => {
                let text = self.text(node, file_key)?;
                if text.is_empty() {
                    self.report(node.place(), file_key, "is empty");
                    return None;
                }
                let source = PemSource::File(self.folder.join(text));
                Some(Pem { key: file_key, line: node.place().line, source })
            }
            (None, Some(node)) => {
                let source = PemSource::Inline(self.text(node, inline_key)?.to_owned());
                Some(Pem { key: inline_key, line: node.place().line, source })
            }
            (Some(_), Some(node)) => {
                self.report(node.place(), inline_key, format!("is set and so is {file}: leave one out"));
                None
            }
            (None, None) => None,
        }
    }
}

/// The name at the end of a dotted key.
fn last(key: &'static str) -> &'static str {
    key.rsplit('.').next().unwrap_or(key)
}
