//! Numbers, ids and texts in as few bytes as they need, as packets have them.

use edri_events::Incarnation;

use crate::packet::PacketError;

/// Appends a number in 7 bits a byte, the lowest first; the highest bit says that more follow.
#[inline]
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a text after its length.
#[inline]
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends the eight bytes of a random number, the highest first.
#[inline]
pub(crate) fn put_random(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// A difference of either sign as a number that is small when the difference is.
#[inline]
pub(crate) fn zigzag(difference: i64) -> u64 {
    ((difference << 1) ^ (difference >> 63)) as u64
}

/// The difference of this [`zigzag`] number.
#[inline]
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

const ENDS_EARLY: PacketError = PacketError::Malformed("it ends early");

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, PacketError> {
        let (byte, rest) = self.rest.split_first().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], PacketError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], PacketError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// What [`put_random`] wrote.
    #[inline]
    pub(crate) fn random(&mut self) -> Result<u64, PacketError> {
        self.array().map(u64::from_be_bytes)
    }

    /// What [`put_number`] wrote, in its shortest form.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<u64, PacketError> {
        let first = self.byte()?;
        if first < 0x80 { Ok(first.into()) } else { self.long_number(first) }
    }

    fn long_number(&mut self, first: u8) -> Result<u64, PacketError> {
        let mut number = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            if byte == 0 || (shift == 63 && byte > 1) {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(PacketError::Malformed("a number beyond 64 bits, or not in its shortest form"))
    }

    /// A number of 32 bits.
    #[inline]
    pub(crate) fn number32(&mut self) -> Result<u32, PacketError> {
        u32::try_from(self.number()?).map_err(|_| PacketError::Malformed("a number beyond 32 bits"))
    }

    /// How many things follow, each of at least `each` bytes: no more than `max`, and no more than there are bytes for, so
    /// that it is safe to make room for them.
    pub(crate) fn count(&mut self, what: &'static str, max: usize, each: usize) -> Result<usize, PacketError> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count > max {
            return Err(PacketError::TooMany { what, max });
        }
        if count > self.rest.len() / each { Err(ENDS_EARLY) } else { Ok(count) }
    }

    /// As many bytes as the number before them says, at most `max`.
    #[inline]
    pub(crate) fn sized(&mut self, max: usize) -> Result<&'a [u8], PacketError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length > max {
            return Err(PacketError::TooLong { bytes: length, max });
        }
        self.bytes(length)
    }

    /// What [`put_text`] wrote.
    #[inline]
    pub(crate) fn text(&mut self, max: usize) -> Result<&'a str, PacketError> {
        std::str::from_utf8(self.sized(max)?).map_err(|_| PacketError::Malformed("a text that is not UTF-8"))
    }

    pub(crate) fn incarnation(&mut self) -> Result<Incarnation, PacketError> {
        Incarnation::from_number(self.random()?).ok_or(PacketError::Malformed("an incarnation of zero"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_reads_back_and_has_one_form() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(out, bytes);
            let mut input = Input::new(&out);
            assert_eq!((input.number(), input.len()), (Ok(number), 0));
        }
        for bytes in [
            &[0x80, 0][..],
            &[0xff, 0x80, 0],
            &[0xff; 10],
            &[0x80; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert!(matches!(Input::new(bytes).number(), Err(PacketError::Malformed(_))), "{bytes:?}");
        }
    }

    #[test]
    fn a_difference_of_either_sign_reads_back() {
        for difference in [0, -1, 1, 63, -64, 64, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(difference)), difference);
        }
        assert_eq!((zigzag(0), zigzag(-1), zigzag(1)), (0, 1, 2));
    }
}
