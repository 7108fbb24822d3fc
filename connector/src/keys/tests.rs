use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use edri_events::NodeName;

use super::certificate::{CertificateError, node_name};
use super::*;

/// A folder of its own, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("edri-keys-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_written_is_read_and_keys_are_closed_to_others() {
    let (office, home) = (Folder::new(), Folder::new());
    let created = Authority::create(office.path()).unwrap();
    let opened = Authority::open(office.path()).unwrap();
    for authority in [created, opened] {
        let issued = authority.issue(&node("north.1"), NODE_VALIDITY).unwrap();
        issued.save(home.path()).unwrap();
        let read = Identity::open(home.path()).unwrap();
        assert_eq!(read.node(), "north.1");
        assert!(read.is_same(&issued));
        let left = read.expires_in();
        assert!(left <= NODE_VALIDITY && left > NODE_VALIDITY - DAY, "{left:?}");
    }
    assert_eq!(mode(&office.file(AUTHORITY_KEY)), 0o600);
    assert_eq!(mode(&home.file(NODE_KEY)), 0o600);
    assert!(!fs::read_to_string(home.file(AUTHORITY_CERTIFICATE)).unwrap().contains("PRIVATE"));
}

#[test]
fn an_authority_is_not_written_over() {
    let folder = Folder::new();
    Authority::create(folder.path()).unwrap();
    let before = fs::read(folder.file(AUTHORITY_KEY)).unwrap();
    let second = Authority::create(folder.path());
    assert!(matches!(second, Err(KeysError::Exists { .. })), "{second:?}");
    assert_eq!(fs::read(folder.file(AUTHORITY_KEY)).unwrap(), before);
}

#[test]
fn a_key_that_others_may_read_is_refused_with_advice() {
    let folder = Folder::new();
    Authority::create(folder.path()).unwrap().issue(&node("a"), NODE_VALIDITY).unwrap().save(folder.path()).unwrap();
    for mode in [0o640, 0o604, 0o620] {
        for key in [AUTHORITY_KEY, NODE_KEY] {
            let path = folder.file(key);
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = match key {
                NODE_KEY => Identity::open(folder.path()).map(drop).unwrap_err(),
                _ => Authority::open(folder.path()).map(drop).unwrap_err(),
            };
            assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
            fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        }
    }
    Identity::open(folder.path()).unwrap();
}

#[test]
fn files_that_do_not_belong_together_are_refused_by_name() {
    let (ours, other) = (Folder::new(), Folder::new());
    let authority = Authority::generate().unwrap();
    let check = |file: &str, expect: fn(&KeysError) -> bool| {
        authority.issue(&node("a"), NODE_VALIDITY).unwrap().save(ours.path()).unwrap();
        Authority::generate().unwrap().issue(&node("a"), NODE_VALIDITY).unwrap().save(other.path()).unwrap();
        fs::copy(other.file(file), ours.file(file)).unwrap();
        let error = Identity::open(ours.path()).unwrap_err();
        assert!(expect(&error), "{file}: {error:?}");
        assert!(error.to_string().contains(&ours.file(file).display().to_string()), "{error}");
    };
    check(NODE_KEY, |error| matches!(error, KeysError::Mismatch { .. }));
    check(NODE_CERTIFICATE, |error| matches!(error, KeysError::Mismatch { .. }));
    check(AUTHORITY_CERTIFICATE, |error| matches!(error, KeysError::Untrusted { .. }));
}

#[test]
fn files_that_are_missing_or_broken_are_named() {
    let folder = Folder::new();
    let error = Identity::open(folder.path()).unwrap_err();
    assert!(matches!(error, KeysError::Read { .. }), "{error:?}");
    Authority::generate().unwrap().issue(&node("a"), NODE_VALIDITY).unwrap().save(folder.path()).unwrap();
    let rubbish = ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "hello"];
    for (file, text) in [NODE_CERTIFICATE, AUTHORITY_CERTIFICATE].iter().flat_map(|f| rubbish.map(|r| (f, r))) {
        let before = fs::read(folder.file(file)).unwrap();
        fs::write(folder.file(file), text).unwrap();
        assert!(Identity::open(folder.path()).is_err(), "{file}: {text:?}");
        fs::write(folder.file(file), before).unwrap();
    }
    fs::write(folder.file(NODE_CERTIFICATE), vec![b'x'; 2 << 20]).unwrap();
    assert!(matches!(Identity::open(folder.path()), Err(KeysError::Read { .. })));
}

#[test]
fn a_certificate_names_exactly_one_node_by_its_uri() {
    let authority = Authority::generate().unwrap();
    let now = SystemTime::now();
    let check = |uris: &[&str], expect: Result<&str, CertificateError>| {
        let uris: Vec<_> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        let folder = Folder::new();
        authority.issue_for(&uris, now, now + DAY, &node("x")).unwrap().save(folder.path()).unwrap();
        let certificates = files::certificates(&folder.file(NODE_CERTIFICATE)).unwrap();
        assert_eq!(node_name(&certificates[0]).as_ref().map(NodeName::as_str), expect.as_ref().copied(), "{uris:?}");
        assert_eq!(Identity::open(folder.path()).is_ok(), expect.is_ok());
    };
    check(&["edri:node:a"], Ok("a"));
    check(&["https://example.com/", "edri:node:a.b"], Ok("a.b"));
    check(&[], Err(CertificateError::NoNode));
    check(&["https://example.com/"], Err(CertificateError::NoNode));
    check(&["edri:node:a", "edri:node:b"], Err(CertificateError::ManyNodes));
    check(&["edri:node:a b"], Err(NodeName::new("a b").unwrap_err().into()));
}

#[test]
fn nothing_outlives_its_authority() {
    let identity = Authority::generate().unwrap().issue(&node("a"), AUTHORITY_VALIDITY * 3).unwrap();
    assert!(identity.expires_in() <= AUTHORITY_VALIDITY);
}

#[test]
fn an_expired_identity_opens_and_says_so() {
    let folder = Folder::new();
    Authority::generate().unwrap().issue(&node("a"), Duration::ZERO).unwrap().save(folder.path()).unwrap();
    assert_eq!(Identity::open(folder.path()).unwrap().expires_in(), Duration::ZERO);
}

#[test]
fn reloading_takes_up_what_is_good_and_keeps_what_was() {
    let folder = Folder::new();
    let authority = Authority::generate().unwrap();
    let first = authority.issue(&node("a"), NODE_VALIDITY).unwrap();
    first.save(folder.path()).unwrap();
    let reloading = Reloading::open(folder.path()).unwrap();
    assert!(!reloading.reload().unwrap());

    let second = authority.issue(&node("a"), NODE_VALIDITY).unwrap();
    second.save(folder.path()).unwrap();
    assert!(reloading.reload().unwrap());
    assert!(reloading.current().is_same(&second));

    fs::write(folder.file(NODE_CERTIFICATE), "half a certifi").unwrap();
    assert!(matches!(reloading.reload(), Err(KeysError::Malformed { .. })));
    authority.issue(&node("b"), NODE_VALIDITY).unwrap().save(folder.path()).unwrap();
    assert!(matches!(reloading.reload(), Err(KeysError::OtherNode { .. })));
    authority.issue(&node("a"), Duration::ZERO).unwrap().save(folder.path()).unwrap();
    assert!(matches!(reloading.reload(), Err(KeysError::Expired { .. })));
    assert!(reloading.current().is_same(&second));
}

#[test]
fn an_authority_may_be_one_of_several_in_its_file() {
    let (old, new, home) = (Folder::new(), Folder::new(), Folder::new());
    Authority::create(old.path()).unwrap();
    Authority::create(new.path()).unwrap();
    let both = [&old, &new].map(|folder| fs::read_to_string(folder.file(AUTHORITY_CERTIFICATE)).unwrap()).concat();
    fs::write(new.file(AUTHORITY_CERTIFICATE), both).unwrap();
    let issued = Authority::open(new.path()).unwrap().issue(&node("a"), NODE_VALIDITY).unwrap();
    issued.save(home.path()).unwrap();
    assert_eq!(Identity::open(home.path()).unwrap().roots().unwrap().len(), 2);
}
