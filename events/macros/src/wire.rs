//! What serde calls a field.
//!
//! An encoded event's key is found by the name its field has on the wire, so the descriptor must have that name. These
//! are the rules of `serde_derive` 1 for fields (`internals/case.rs`).

use proc_macro2::Span;
use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Field, Ident, Lit, Meta, Token};

/// The name under which serde writes and reads the field.
///
/// `ident` is the field's name; errors are shown at `span`.
pub(crate) fn name(item: &[Attribute], field: &Field, ident: &Ident, span: Span) -> syn::Result<String> {
    let plain = ident.unraw().to_string();
    let (mut written, mut read) = (None, None);
    for meta in serde(&field.attrs) {
        let word = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        match &*word {
            "rename" => both(&meta, &mut written, &mut read),
            "skip" | "skip_serializing" | "skip_deserializing" | "flatten" => {
                let message =
                    format!("the field `{plain}` is lost on the wire by `#[serde({word})]`: choose another field");
                return Err(syn::Error::new(span, message));
            }
            _ => {}
        }
    }
    let (mut rule_written, mut rule_read) = (None, None);
    for meta in serde(item).iter().filter(|meta| meta.path().is_ident("rename_all")) {
        both(meta, &mut rule_written, &mut rule_read);
    }
    let apply = |rule: Option<String>| rule.map(|rule| by_rule(&rule, &plain));
    let written = written.or_else(|| apply(rule_written)).unwrap_or_else(|| plain.clone());
    let read = read.or_else(|| apply(rule_read)).unwrap_or_else(|| plain.clone());
    if written == read {
        return Ok(written);
    }
    let message = format!(
        "the field `{plain}` is written as `{written}` but read as `{read}`: give it one name on the wire, by which \
         every node finds it"
    );
    Err(syn::Error::new(span, message))
}

/// What the `#[serde(..)]` among these attributes say. What is malformed is left for serde to complain about.
pub(crate) fn serde(attributes: &[Attribute]) -> Vec<Meta> {
    metas(attributes, "serde")
}

/// What the attributes called `name` say.
pub(crate) fn metas(attributes: &[Attribute], name: &str) -> Vec<Meta> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident(name))
        .filter_map(|attribute| attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok())
        .flatten()
        .collect()
}

/// Reads `x = "both"` or `x(serialize = "one", deserialize = "other")`.
fn both(meta: &Meta, written: &mut Option<String>, read: &mut Option<String>) {
    match meta {
        Meta::NameValue(pair) => {
            *written = text(&pair.value);
            read.clone_from(written);
        }
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
            for part in &parts {
                match part {
                    Meta::NameValue(pair) if pair.path.is_ident("serialize") => *written = text(&pair.value),
                    Meta::NameValue(pair) if pair.path.is_ident("deserialize") => *read = text(&pair.value),
                    _ => {}
                }
            }
        }
        Meta::Path(_) => {}
    }
}

/// The value of a string literal.
pub(crate) fn text(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

/// What `rename_all = "rule"` makes of a field.
fn by_rule(rule: &str, field: &str) -> String {
    let pascal = || {
        field.split('_').fold(String::new(), |mut name, word| {
            let mut letters = word.chars();
            name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            name.push_str(letters.as_str());
            name
        })
    };
    match rule {
        "UPPERCASE" | "SCREAMING_SNAKE_CASE" => field.to_ascii_uppercase(),
        "PascalCase" => pascal(),
        "camelCase" => {
            let pascal = pascal();
            let mut letters = pascal.chars();
            letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
        }
        "kebab-case" => field.replace('_', "-"),
        "SCREAMING-KEBAB-CASE" => field.to_ascii_uppercase().replace('_', "-"),
        // `lowercase` and `snake_case` leave a field as it is; serde refuses what is no rule.
        _ => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use syn::{ItemStruct, parse_quote};

    use super::*;

    fn name_of(item: &ItemStruct) -> Result<String, String> {
        let field = item.fields.iter().next().expect("a field");
        let ident = field.ident.as_ref().expect("a name");
        name(&item.attrs, field, ident, ident.span()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_field_is_called_what_serde_calls_it() {
        let check = |item: ItemStruct, expect: &str| assert_eq!(name_of(&item).as_deref(), Ok(expect));
        check(
            parse_quote!(
                struct A {
                    home_region: u8,
                }
            ),
            "home_region",
        );
        check(
            parse_quote!(
                struct A {
                    r#type: u8,
                }
            ),
            "type",
        );
        check(
            parse_quote!(
                struct A {
                    #[serde(default, rename = "hr")]
                    home_region: u8,
                }
            ),
            "hr",
        );
        check(
            parse_quote!(
                #[serde(rename_all = "camelCase")]
                struct A {
                    home_region: u8,
                }
            ),
            "homeRegion",
        );
        check(
            parse_quote!(
                #[serde(rename_all = "PascalCase")]
                struct A {
                    home_region: u8,
                }
            ),
            "HomeRegion",
        );
        check(
            parse_quote!(
                #[serde(rename_all = "kebab-case")]
                struct A {
                    home_region: u8,
                }
            ),
            "home-region",
        );
        check(
            parse_quote!(
                #[serde(rename_all = "SCREAMING-KEBAB-CASE")]
                struct A {
                    home_region: u8,
                }
            ),
            "HOME-REGION",
        );
        check(
            parse_quote!(
                #[serde(rename_all = "UPPERCASE")]
                struct A {
                    home_region: u8,
                }
            ),
            "HOME_REGION",
        );
        check(
            parse_quote!(
                #[serde(rename_all = "camelCase")]
                struct A {
                    #[serde(rename = "hr")]
                    home_region: u8,
                }
            ),
            "hr",
        );
    }

    #[test]
    fn a_key_that_is_lost_or_renamed_on_the_way_is_refused() {
        let lost = parse_quote!(
            struct A {
                #[serde(skip)]
                region: u8,
            }
        );
        assert_eq!(
            name_of(&lost),
            Err("the field `region` is lost on the wire by `#[serde(skip)]`: choose another field".to_owned())
        );
        let renamed = parse_quote!(
            struct A {
                #[serde(rename(serialize = "r"))]
                region: u8,
            }
        );
        assert_eq!(
            name_of(&renamed),
            Err("the field `region` is written as `r` but read as `region`: give it one name on the wire, by which every \
                 node finds it"
                .to_owned())
        );
    }
}
