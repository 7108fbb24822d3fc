//! Who the nodes are: their keys, and the authority that issues them.
//!
//! ```text
//! FOLDER/authority.pem, authority.key     whose nodes belong together
//! FOLDER/NAME/                            the keys of one node: all that it needs
//! ```
//!
//! Nodes that start at once may all find that there are no keys. So each folder is made under a name of its own and then
//! given its place: one is first, and the others take what is there.

use std::fs;
use std::path::{Path, PathBuf};

use edri::NodeName;
use edri::keys::{Authority, Identity, KeysError, NODE_VALIDITY};

use crate::python::beside_the_build;

/// The identity in the folder of a node.
///
/// # Errors
///
/// Says in a line what is wrong and what to do.
pub(crate) fn open(folder: &Path) -> Result<Identity, String> {
    Identity::open(folder).map_err(|error| match error {
        KeysError::Read { .. } => {
            format!("{error}: make keys with `--make-keys FOLDER NAME`, and say `--keys FOLDER/NAME`")
        }
        error => error.to_string(),
    })
}

/// The identity of the node of this name among the keys beside the build, which are made if they are not there.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn own(name: &str, say: impl Fn(&str)) -> Result<Identity, String> {
    let keys = beside_the_build("quakes-keys").ok_or(
        "the program is not where cargo has put it: start it by `cargo run`, or name the node's keys with `--keys`",
    )?;
    let folder = make(&keys, name, say)?;
    open(&folder)
}

/// Makes an identity for the node of this name in a folder of its own in `keys`, and the authority, unless they are there.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn make(keys: &Path, name: &str, say: impl Fn(&str)) -> Result<PathBuf, String> {
    let name = NodeName::new(name).map_err(|error| error.to_string())?;
    if !keys.join("authority.key").exists() {
        let made = in_one_step(keys, |folder| Authority::create(folder).map(drop))?;
        if made {
            say(&format!(
                "made an authority in {}: who has its key decides who belongs to the cluster",
                keys.display()
            ));
        }
    }
    let folder = keys.join(name.as_str());
    if !folder.exists() {
        let authority = Authority::open(keys).map_err(|error| error.to_string())?;
        let made = in_one_step(&folder, |folder| authority.issue(&name, NODE_VALIDITY)?.save(folder))?;
        if made {
            say(&format!("made keys for the node `{name}` in {}", folder.display()));
        }
    }
    Ok(folder)
}

/// Fills a folder beside `place` and then moves it there. `false` when somebody else was first.
fn in_one_step(place: &Path, fill: impl FnOnce(&Path) -> Result<(), KeysError>) -> Result<bool, String> {
    let mut beside = place.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let filled = fill(&beside).map_err(|error| error.to_string());
    let moved = filled.and_then(|()| match fs::rename(&beside, place) {
        Ok(()) => Ok(true),
        Err(_) if place.exists() => Ok(false),
        Err(error) => Err(format!("{} cannot be made: {error}", place.display())),
    });
    if !matches!(moved, Ok(true)) {
        // It is of no use; what went wrong is told already.
        let _ = fs::remove_dir_all(&beside);
    }
    moved
}
