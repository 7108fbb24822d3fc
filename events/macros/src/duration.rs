//! Durations as texts: `500ms`, `1.5s`, `2m`, `1h`.

/// Reads a duration in milliseconds.
pub(crate) fn parse_ms(text: &str) -> Result<u64, String> {
    let number_end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(format!("{text:?} is no duration: {GRAMMAR}"));
    }
    let unit_ms: u128 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(format!("{text:?} has no unit: {GRAMMAR}")),
        _ => return Err(format!("{unit:?} is no unit of time: {GRAMMAR}")),
    };
    let beyond = || format!("{text:?} is beyond what edri can count");
    let fraction_of = 10_u128.checked_pow(u32::try_from(fraction.len()).map_err(|_| beyond())?).ok_or_else(beyond)?;
    let parts = format!("{whole}{fraction}").parse::<u128>().ok().and_then(|parts| parts.checked_mul(unit_ms));
    let parts = parts.ok_or_else(beyond)?;
    if parts == 0 {
        return Err(
            "a limit of zero would be over before it began: write how long, or leave the option away".to_owned()
        );
    }
    if parts % fraction_of != 0 {
        return Err(format!("{text:?} is finer than edri counts: write whole milliseconds"));
    }
    u64::try_from(parts / fraction_of).map_err(|_| beyond())
}

const GRAMMAR: &str = "write a number and `ms`, `s`, `m` or `h`, like \"500ms\" or \"2s\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        let check = |text: &str, expect: u64| assert_eq!(parse_ms(text), Ok(expect), "{text}");
        check("500ms", 500);
        check("2s", 2_000);
        check("1.5s", 1_500);
        check("0.001s", 1);
        check("2m", 120_000);
        check("0.5h", 1_800_000);
        check("007s", 7_000);
        check("1.000ms", 1);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            " 5s",
            "5sec",
            "-5s",
            "+5s",
            "1e3s",
            ".5s",
            "5.s",
            "1.5.5s",
            "5S",
            "0s",
            "0.0m",
            "0.5ms",
            "1.0001s",
            "99999999999999999999h",
            "999999999999999999999999999999999999999999s",
        ] {
            assert!(parse_ms(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_error_says_what_is_wrong() {
        assert_eq!(
            parse_ms("5"),
            Err("\"5\" has no unit: write a number and `ms`, `s`, `m` or `h`, like \"500ms\" or \"2s\"".to_owned())
        );
        assert_eq!(
            parse_ms("5sec"),
            Err("\"sec\" is no unit of time: write a number and `ms`, `s`, `m` or `h`, like \"500ms\" or \"2s\""
                .to_owned())
        );
    }
}
