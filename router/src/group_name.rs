//! What groups are called.

use std::fmt;
use std::str::FromStr;

use edri_events::__private::schemars;
use edri_events::{ManagerName, NameError, NodeName};

/// What a group is called: its manager's name, or the number of a subscription; of another node, with that node's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupName {
    /// The workers of this manager.
    Manager(ManagerName),
    /// A subscription of the program around the node.
    Subscription(u64),
    /// A group of another node.
    Remote {
        /// The node.
        node: NodeName,
        /// What the group is called there.
        group: Box<GroupName>,
    },
}

/// How a subscription is written, before its number.
const SUBSCRIPTION: &str = "subscription.";

impl GroupName {
    /// The name of the manager on this node whose workers the group is. For one on any node see
    /// [`GroupName::manager_anywhere`].
    #[must_use]
    pub fn manager(&self) -> Option<&ManagerName> {
        match self {
            Self::Manager(name) => Some(name),
            Self::Subscription(_) | Self::Remote { .. } => None,
        }
    }

    /// The name of the manager whose workers the group is, on whatever node it is.
    #[must_use]
    pub fn manager_anywhere(&self) -> Option<&ManagerName> {
        match self {
            Self::Remote { group, .. } => group.manager_anywhere(),
            here => here.manager(),
        }
    }

    /// The other node that the group is on; `None` for a group of this one.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Remote { node, .. } => Some(node),
            Self::Manager(_) | Self::Subscription(_) => None,
        }
    }
}

/// For people; [`GroupName::to_text`] is for machines.
impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manager(name) => write!(f, "manager `{name}`"),
            Self::Subscription(number) => write!(f, "subscription {number}"),
            Self::Remote { node, group } => write!(f, "{group} on node `{node}`"),
        }
    }
}

impl GroupName {
    /// As it is written in answers and frames: `risk`, `subscription.7`, `north/risk` for a group of the node `north`.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Manager(name) => name.to_string(),
            Self::Subscription(number) => format!("{SUBSCRIPTION}{number}"),
            Self::Remote { node, group } => format!("{node}/{}", group.to_text()),
        }
    }
}

/// Reads what [`GroupName::to_text`] writes.
impl FromStr for GroupName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some((node, group)) = text.split_once('/') {
            // A group name has one slash at most, so this goes no deeper.
            let group = if group.contains('/') { ManagerName::new(group).map(Self::Manager) } else { group.parse() };
            return Ok(Self::Remote { node: NodeName::new(node)?, group: Box::new(group?) });
        }
        match text.strip_prefix(SUBSCRIPTION).map(str::parse) {
            Some(Ok(number)) => Ok(Self::Subscription(number)),
            _ => ManagerName::new(text).map(Self::Manager),
        }
    }
}

impl serde::Serialize for GroupName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> serde::Deserialize<'de> for GroupName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for GroupName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GroupName".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (text, shown, manager, anywhere) in [
            ("risk", "manager `risk`", Some("risk"), Some("risk")),
            ("subscription.7", "subscription 7", None, None),
            ("north/risk", "manager `risk` on node `north`", None, Some("risk")),
            ("north/subscription.7", "subscription 7 on node `north`", None, None),
        ] {
            let name: GroupName = text.parse().expect(text);
            assert_eq!(name.to_text(), text);
            assert_eq!(name.to_string(), shown);
            assert_eq!(name.manager().map(ManagerName::as_str), manager);
            assert_eq!(name.manager_anywhere().map(ManagerName::as_str), anywhere);
            assert_eq!(name.node().map(NodeName::as_str), text.split_once('/').map(|(node, _)| node));
        }
        for wrong in ["", "a/b/c", "/risk", "north/", "a b"] {
            assert!(wrong.parse::<GroupName>().is_err(), "{wrong:?}");
        }
    }
}
