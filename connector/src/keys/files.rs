//! Reading and writing the files of a folder of keys.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::KeysError;
use crate::limits::{CERTIFICATES_MAX, KEY_FILE_BYTES_MAX};

/// Makes `folder` if it is not there, closed to others.
pub(super) fn make_folder(folder: &Path) -> Result<(), KeysError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| KeysError::Write { path: folder.to_owned(), source })
}

/// Writes a file that must not be there yet.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), KeysError> {
    let mut options = OpenOptions::new();
    match write(options.write(true).create_new(true).mode(mode), path, text) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(KeysError::Exists { path: path.to_owned() }),
        written => written.map_err(|source| KeysError::Write { path: path.to_owned(), source }),
    }
}

/// Writes a file in one step: who reads it sees all of the old text or all of the new.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), KeysError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = (|| {
        // What an interrupted writing left behind may have other permissions.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write(OpenOptions::new().write(true).create_new(true).mode(mode), &new, text)?;
        fs::rename(&new, path)
    })();
    written.map_err(|source| KeysError::Write { path: path.to_owned(), source })
}

fn write(options: &OpenOptions, path: &Path, text: &str) -> io::Result<()> {
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// All certificates in a file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KeysError> {
    let (text, _) = read(path)?;
    let malformed = |what: String| KeysError::Malformed { path: path.to_owned(), what };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| malformed(format!("holds something that is no certificate ({error})")))?;
    match found.len() {
        0 => Err(malformed("holds no certificate".to_owned())),
        1..=CERTIFICATES_MAX => Ok(found),
        _ => Err(malformed(format!("holds more than {CERTIFICATES_MAX} certificates"))),
    }
}

/// The key in a file that nobody else can read.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, KeysError> {
    let text = closed(path)?;
    let key = PrivateKeyDer::from_pem_slice(&text);
    key.map_err(|error| KeysError::Malformed { path: path.to_owned(), what: format!("holds no private key ({error})") })
}

/// The key in a file that nobody else can read, ready to issue with.
pub(super) fn key_pair(path: &Path) -> Result<KeyPair, KeysError> {
    let malformed = |what: String| KeysError::Malformed { path: path.to_owned(), what };
    let text = String::from_utf8(closed(path)?).map_err(|_| malformed("is not text".to_owned()))?;
    KeyPair::from_pem(&text).map_err(|error| malformed(format!("holds no private key ({error})")))
}

fn closed(path: &Path) -> Result<Vec<u8>, KeysError> {
    let (text, mode) = read(path)?;
    if mode & 0o077 != 0 {
        return Err(KeysError::Open { path: path.to_owned(), mode });
    }
    Ok(text)
}

/// A file's bytes, and who may do what with that very file.
fn read(path: &Path) -> Result<(Vec<u8>, u32), KeysError> {
    let content = (|| {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode() & 0o777;
        let mut bytes = Vec::new();
        if file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > KEY_FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than a file of keys may be"));
        }
        Ok((bytes, mode))
    })();
    content.map_err(|source| KeysError::Read { path: path.to_owned(), source })
}

/// Differs when a file may have been written or replaced. `None` when it cannot be seen.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The stamp of the file at `path`, behind all symbolic links.
pub(super) fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
}
