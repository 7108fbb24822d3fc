use bytes::Bytes;

/// The body of a packet as its origin keeps it. In two pieces, what was written and a long payload after it, the payload is
/// never copied.
#[derive(Debug, Clone)]
pub struct PacketBody {
    pub(super) head: Bytes,
    pub(super) rest: Bytes,
}

impl PacketBody {
    /// A body that begins with `head`, which is short: it is copied for each link.
    #[must_use]
    pub fn in_two(head: Bytes, rest: Bytes) -> Self {
        Self { head, rest }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.rest.len()
    }
}

impl From<Bytes> for PacketBody {
    fn from(body: Bytes) -> Self {
        Self { head: Bytes::new(), rest: body }
    }
}
