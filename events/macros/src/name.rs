//! The rules of event names, as `edri_events::EventName` has them.

/// The longest name, in bytes; `NAME_BYTES_MAX` of `edri_events`.
const BYTES_MAX: usize = 200;

/// Says which rule `name` breaks. `reserved` tells whether names of edri's own may be used.
pub(crate) fn check(name: &str, reserved: bool) -> Result<(), String> {
    if name.len() > BYTES_MAX {
        return Err(format!("an event name has {BYTES_MAX} bytes at most, this one has {}", name.len()));
    }
    if name.split('.').any(str::is_empty) {
        return Err(format!(
            "event name {name:?} has an empty segment: write segments separated by single dots, like \"quake.recorded\""
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        let words: Vec<_> = name.split(|c| !allowed(c)).filter(|word| !word.is_empty()).collect();
        let fixed = words.join(".");
        let advice = check(&fixed, reserved).map(|()| format!(" (did you mean {fixed:?}?)")).unwrap_or_default();
        return Err(format!(
            "event name {name:?} contains {bad:?}{advice}: use ASCII letters, digits, `_` and `-` between dots"
        ));
    }
    if name.starts_with("edri.") && !reserved {
        return Err("names that begin with `edri.` belong to edri itself: begin with a word of your own".to_owned());
    }
    Ok(())
}

/// The name that suggests itself for a type: `quake.recorded` for `QuakeRecorded`.
pub(crate) fn of_type(ident: &str) -> String {
    let mut name = String::new();
    for c in ident.chars().filter(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('.');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_dotted_segments_of_letters_digits_underscore_and_dash() {
        for good in ["a", "quake.recorded", "A-1.b_2", "x.y.z.1", "edri", "edrix.a", &"x".repeat(200)] {
            assert_eq!(check(good, false), Ok(()));
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "quake/recorded", "é", "a.*", "a.>", &"x".repeat(201)] {
            assert!(check(bad, true).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_name_with_other_separators_is_answered_with_the_dotted_one() {
        assert_eq!(
            check("quake::recorded", false),
            Err("event name \"quake::recorded\" contains ':' (did you mean \"quake.recorded\"?): use ASCII letters, \
                 digits, `_` and `-` between dots"
                .to_owned())
        );
        assert_eq!(
            check("é", false),
            Err("event name \"é\" contains 'é': use ASCII letters, digits, `_` and `-` between dots".to_owned())
        );
    }

    #[test]
    fn names_of_edri_are_for_edri() {
        assert!(check("edri.node.up", false).is_err());
        assert_eq!(check("edri.node.up", true), Ok(()));
    }

    #[test]
    fn a_type_suggests_a_name() {
        assert_eq!(of_type("QuakeRecorded"), "quake.recorded");
        assert_eq!(of_type("Tick"), "tick");
    }
}
