//! Makes the certificates of a cluster: an authority, one for servers and one for clients, each with its key.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::{ClientTls, Result, ServerTls, error::io};

/// How long the certificates hold; make new ones before.
pub const VALID_DAYS: i64 = 825;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files(PathBuf);

impl Files {
    /// Names a folder that [`make`] filled.
    pub fn of(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Returns what a server needs to ask for a client certificate, `required` on every connection or only for workers' calls.
    pub fn server(&self, required: bool) -> ServerTls {
        ServerTls {
            certificate: self.0.join("server.pem"),
            key: self.0.join("server.key"),
            client_ca: Some(self.0.join("ca.pem")),
            client_required: required,
        }
    }

    /// Returns what a client needs to show a certificate.
    pub fn client(&self) -> ClientTls {
        let identity = Some((self.0.join("client.pem"), self.0.join("client.key")));
        ClientTls { ca: self.0.join("ca.pem"), identity, server_name: None }
    }
}

/// Makes `{ca,server,client}.{pem,key}` in `folder`; the server's holds for `hosts` (names or addresses). Keys are readable by their
/// owner alone (mode 0600). Files that are there are never overwritten.
///
/// # Errors
/// [`crate::Error::Io`] for a file that exists or cannot be written, [`crate::Error::Certificates`] for a host that is no name.
pub fn make(folder: &Path, hosts: &[String]) -> Result<Files> {
    fs::create_dir_all(folder).map_err(io("create", folder))?;
    let ca_key = KeyPair::generate()?;
    let mut ca = params("joust authority", Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = ca.self_signed(&ca_key)?;
    write(folder, "ca", &certificate.pem(), &ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    for (name, hosts, usage) in [
        ("server", hosts.to_vec(), ExtendedKeyUsagePurpose::ServerAuth),
        ("client", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate()?;
        let mut leaf = params(&format!("joust {name}"), hosts)?;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.use_authority_key_identifier_extension = true;
        write(folder, name, &leaf.signed_by(&key, &issuer)?.pem(), &key)?;
    }
    Ok(Files::of(folder))
}

fn params(name: &str, hosts: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    // A day back, for clocks that differ.
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(VALID_DAYS);
    Ok(params)
}

fn write(folder: &Path, name: &str, certificate: &str, key: &KeyPair) -> Result<()> {
    for (path, text, mode) in [
        (folder.join(format!("{name}.key")), key.serialize_pem(), 0o600),
        (folder.join(format!("{name}.pem")), certificate.to_owned(), 0o644),
    ] {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).map_err(io("create", &path))?;
        file.write_all(text.as_bytes()).map_err(io("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_private_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        make(folder.path(), &["localhost".into(), "127.0.0.1".into()]).expect("made");
        for name in ["ca", "server", "client"] {
            let mode = |kind: &str| {
                let path = folder.path().join(format!("{name}.{kind}"));
                fs::metadata(path).expect("there").permissions().mode() & 0o777
            };
            assert_eq!(mode("key"), 0o600, "{name}");
        }
        let before = fs::read(folder.path().join("ca.key")).expect("there");
        assert!(make(folder.path(), &["localhost".into()]).is_err());
        assert_eq!(fs::read(folder.path().join("ca.key")).expect("there"), before);
    }
}
