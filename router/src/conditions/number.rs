//! Numbers of either kind, compared by their exact value.

use std::cmp::Ordering;

/// A number as it stands in a payload. An integer is one of 64 bits, with or without a sign.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Integer(i128),
    Float(f64),
}

/// Two to the 64th: the first number above all integers.
const ABOVE: f64 = 18_446_744_073_709_551_616.0;
/// The least integer, two to the 63rd below zero.
const LEAST: f64 = -9_223_372_036_854_775_808.0;

impl Number {
    /// A 32-bit float: the number that its shortest decimal text says, as it would be in JSON.
    pub(super) fn short(float: f32) -> Self {
        Self::Float(float.to_string().parse().unwrap_or_else(|_| f64::from(float)))
    }

    /// How the two are ordered; `None` when one is not a number.
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(&b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Integer(a), Self::Float(b)) => integer_to_float(a, b),
            (Self::Float(a), Self::Integer(b)) => integer_to_float(b, a).map(Ordering::reverse),
        }
    }
}

/// Made of integers only: a float of 53 bits cannot hold every integer of 64.
fn integer_to_float(integer: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float >= ABOVE {
        return Some(Ordering::Less);
    }
    if float < LEAST {
        return Some(Ordering::Greater);
    }
    // Within these bounds the whole part is an integer of 128 bits.
    let whole = float.trunc();
    Some(integer.cmp(&(whole as i128)).then(whole.partial_cmp(&float)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_beyond_53_bits_is_compared_with_a_float_exactly() {
        let check = |integer: i128, float: f64, expect: Ordering| {
            assert_eq!(Number::Integer(integer).compare(Number::Float(float)), Some(expect), "{integer} {float}");
            assert_eq!(Number::Float(float).compare(Number::Integer(integer)), Some(expect.reverse()));
        };
        let edge = 1_i128 << 53;
        check(edge, edge as f64, Ordering::Equal);
        // As floats these two would be the same.
        check(edge + 1, edge as f64, Ordering::Greater);
        check(-edge - 1, -edge as f64, Ordering::Less);
        check(i128::from(u64::MAX), ABOVE, Ordering::Less);
        check(i128::from(u64::MAX), ABOVE.next_down(), Ordering::Greater);
        check(i128::from(i64::MIN), LEAST, Ordering::Equal);
        check(i128::from(i64::MIN), LEAST.next_down(), Ordering::Greater);
        check(0, 0.5, Ordering::Less);
        check(0, -0.5, Ordering::Greater);
        check(0, -0.0, Ordering::Equal);
        check(-1, -1.5, Ordering::Greater);
        check(1, f64::INFINITY, Ordering::Less);
        check(1, f64::NEG_INFINITY, Ordering::Greater);
        assert_eq!(Number::Integer(1).compare(Number::Float(f64::NAN)), None);
    }

    #[test]
    fn a_short_float_is_what_its_text_says() {
        assert_eq!(Number::short(4.7).compare(Number::Float(4.7)), Some(Ordering::Equal));
        assert_eq!(Number::short(f32::INFINITY).compare(Number::Float(f64::INFINITY)), Some(Ordering::Equal));
        assert_eq!(Number::short(f32::NAN).compare(Number::Float(1.0)), None);
    }
}
