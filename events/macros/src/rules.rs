//! `#[validate(..)]`: what a field's value must be beside its type.
//!
//! Rules become keywords of the field's JSON Schema, which is what payloads from outside are held to. They are written with
//! schemars' `extend`, which takes them whatever the field's schema is made of; its own reading of `#[validate]` silently leaves
//! out what it finds no type for. What no schema can say is a function of the user's (`custom`), and is called.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, GenericArgument, Lit, LitStr, Meta, Path,
    PathArguments, Token, Type,
};

use crate::suggest::{did_you_mean, list};
use crate::wire;

const NAME: &str = "validate";
/// Says that the lengths of a list in a schema are rules.
const LENGTH_RULE: &str = "x-edri-length";
const RULES: [&str; 7] = ["length", "range", "regex", "email", "url", "inner", "custom"];

/// The rules of an item, and the item without them.
pub(crate) struct Ruled {
    /// Without attributes of its own, its rules as schemars has them.
    pub(crate) rest: TokenStream,
    /// Functions that look at the whole.
    pub(crate) custom: Vec<Path>,
    /// Those that look at a field: of a struct under `None`, otherwise of a variant; with the number of the field.
    pub(crate) custom_fields: Vec<(Option<usize>, usize, Path)>,
}

/// Takes the rules of an item; `None` when it has none. What is wrong with them is added to `errors`.
pub(crate) fn take(input: &DeriveInput, errors: &mut Vec<syn::Error>) -> Option<Ruled> {
    let is_ruled = |fields: &Fields| fields.iter().any(|field| has(&field.attrs));
    let ruled = match &input.data {
        Data::Struct(data) => is_ruled(&data.fields),
        Data::Enum(data) => data.variants.iter().any(|variant| has(&variant.attrs) || is_ruled(&variant.fields)),
        Data::Union(_) => false,
    };
    if !ruled && !has(&input.attrs) {
        return None;
    }
    let mut item = input.clone();
    let custom = of_whole(&input.attrs, errors);
    item.attrs.clear();
    let mut custom_fields = Vec::new();
    let mut take_from = |variant: Option<usize>, fields: &mut Fields, errors: &mut Vec<syn::Error>| {
        for (number, field) in fields.iter_mut().enumerate() {
            let rules = of_field(field, errors);
            custom_fields.extend(rules.custom.into_iter().map(|path| (variant, number, path)));
            field.attrs.retain(|attribute| !attribute.path().is_ident(NAME));
            let Keywords { names, values } = &rules.keywords;
            if !names.is_empty() {
                field.attrs.push(syn::parse_quote!(#[schemars(extend(#(#names = #values),*))]));
            }
            for inner in &rules.inner {
                field.attrs.push(syn::parse_quote!(#[schemars(inner(#inner))]));
            }
        }
    };
    match &mut item.data {
        Data::Struct(data) => take_from(None, &mut data.fields, errors),
        Data::Enum(data) => {
            for (number, variant) in data.variants.iter_mut().enumerate() {
                if let Some(attribute) = variant.attrs.iter().find(|attribute| attribute.path().is_ident(NAME)) {
                    let message = "a variant has no rules, its fields have: write `#[validate(..)]` at them";
                    errors.push(syn::Error::new(attribute.span(), message));
                }
                variant.attrs.retain(|attribute| !attribute.path().is_ident(NAME));
                take_from(Some(number), &mut variant.fields, errors);
            }
        }
        Data::Union(_) => {}
    }
    Some(Ruled { rest: item.into_token_stream(), custom, custom_fields })
}

fn has(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(NAME))
}

/// Whether an attribute is one of rules.
pub(crate) fn is_rule(attribute: &Attribute) -> bool {
    attribute.path().is_ident(NAME)
}

/// One rule as it is written: `email`, `length(min = 1)`, `custom(check)`.
fn metas(attributes: &[Attribute], errors: &mut Vec<syn::Error>) -> Vec<Meta> {
    let read = |attribute: &Attribute| attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    let mut all = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(NAME)) {
        match read(attribute) {
            Ok(metas) => all.extend(metas),
            Err(error) => errors.push(error),
        }
    }
    all
}

fn of_whole(attributes: &[Attribute], errors: &mut Vec<syn::Error>) -> Vec<Path> {
    let mut custom = Vec::new();
    for meta in metas(attributes, errors) {
        if meta.path().is_ident("custom") {
            match function(&meta) {
                Ok(path) => custom.push(path),
                Err(error) => errors.push(error),
            }
        } else {
            let message = "only `custom(function)` looks at the whole: other rules stand at a field";
            errors.push(syn::Error::new(meta.span(), message));
        }
    }
    custom
}

#[derive(Default)]
struct FieldRules {
    keywords: Keywords,
    /// What schemars does for the items of a list.
    inner: Vec<TokenStream>,
    custom: Vec<Path>,
}

#[derive(Default)]
struct Keywords {
    names: Vec<&'static str>,
    values: Vec<Expr>,
}

impl Keywords {
    fn add(&mut self, name: &'static str, value: &Expr, at: Span) -> syn::Result<()> {
        if self.names.contains(&name) {
            return Err(syn::Error::new(at, "this rule is given twice"));
        }
        self.names.push(name);
        self.values.push(value.clone());
        Ok(())
    }
}

fn of_field(field: &Field, errors: &mut Vec<syn::Error>) -> FieldRules {
    let mut rules = FieldRules::default();
    let metas = metas(&field.attrs, errors);
    let Some(first) = metas.first() else { return rules };
    if let Some(why) = lost(field) {
        errors.push(syn::Error::new(first.span(), why));
        return rules;
    }
    for meta in &metas {
        if let Err(error) = add(&mut rules, meta, &field.ty) {
            errors.push(error);
        }
    }
    rules
}

/// Why what comes in a field would not be held to its rules.
fn lost(field: &Field) -> Option<String> {
    wire::serde(&field.attrs).iter().find_map(|meta| {
        let word = meta.path().get_ident()?.to_string();
        let why = match &*word {
            "alias" => "what comes under another name would pass: leave the alias out",
            "skip" | "skip_deserializing" => "it never comes from outside: leave the rule out",
            "flatten" => "it is no field of its own: write the rules at the fields within",
            _ => return None,
        };
        Some(format!("a field with `#[serde({word})]` has no rules: {why}"))
    })
}

fn add(rules: &mut FieldRules, meta: &Meta, ty: &Type) -> syn::Result<()> {
    let word = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
    let kind = Kind::of(ty);
    match &*word {
        "length" => {
            let Bounds { min, max, .. } = bounds(meta, false)?;
            for (prefix, value) in [("min", min), ("max", max)] {
                let Some(value) = value else { continue };
                for name in length_keywords(kind, prefix, meta.span())? {
                    rules.keywords.add(name, &value, meta.span())?;
                }
            }
            if ["minItems", "maxItems"].iter().all(|name| rules.keywords.names.contains(name)) {
                // Or a list of one length only would be taken for an array, whose type says as much.
                rules.keywords.add(LENGTH_RULE, &syn::parse_quote!(true), meta.span())?;
            }
            Ok(())
        }
        "range" => {
            kind.require(&[Kind::Number], meta.span(), "`range` is for numbers")?;
            let Bounds { min, max, exclusive_min, exclusive_max } = bounds(meta, true)?;
            let limits = [
                ("minimum", min),
                ("maximum", max),
                ("exclusiveMinimum", exclusive_min),
                ("exclusiveMaximum", exclusive_max),
            ];
            let given = limits.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?)));
            given.into_iter().try_for_each(|(name, value)| rules.keywords.add(name, value, meta.span()))
        }
        "regex" => {
            kind.require(&[Kind::Text], meta.span(), "`regex` is for texts")?;
            rules.keywords.add("pattern", &pattern(meta)?, meta.span())
        }
        "email" | "url" => {
            kind.require(&[Kind::Text], meta.span(), &format!("`{word}` is for texts"))?;
            let Meta::Path(path) = meta else {
                return Err(syn::Error::new(meta.span(), format!("`{word}` stands alone: its text is edri's")));
            };
            let format = LitStr::new(if word == "email" { "email" } else { "uri" }, path.span());
            rules.keywords.add("format", &syn::parse_quote!(#format), meta.span())
        }
        "inner" => inner(rules, meta, ty),
        "custom" => {
            rules.custom.push(function(meta)?);
            Ok(())
        }
        other => {
            let instead = match other {
                "contains" | "does_not_contain" => "; a text that contains something is a `regex`",
                "nested" => "; rules of a type within hold without it",
                "required" => "; a field that is needed is no `Option`",
                "must_match" => "; fields that go together are looked at by `custom` above the struct",
                _ => "",
            };
            let near = did_you_mean(other, RULES);
            let message = format!(
                "no JSON Schema holds the rule `{other}`{near}{instead}; the rules are {}",
                list(RULES.into_iter())
            );
            Err(syn::Error::new(meta.span(), message))
        }
    }
}

/// Rules for each item of a list. schemars finds where its items are described, if it knows their type.
fn inner(rules: &mut FieldRules, meta: &Meta, ty: &Type) -> syn::Result<()> {
    let fail = |message: &str| Err(syn::Error::new(meta.span(), message));
    let Some(item) = item_of(ty) else { return fail("`inner` is for the items of a list, like `Vec<String>`") };
    let kind = Kind::of(item);
    if !matches!(kind, Kind::Text | Kind::Number) {
        return fail(
            "`inner` is for lists of texts or numbers: give the items a type of their own with `#[data]`, and that its rules",
        );
    }
    let Meta::List(within) = meta else { return fail("say which: `inner(length(max = 20))`") };
    for meta in within.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)? {
        let mut of_item = FieldRules::default();
        add(&mut of_item, &meta, item)?;
        let rule = match &*meta.path().get_ident().map(ToString::to_string).unwrap_or_default() {
            word @ ("length" | "range") => {
                let Bounds { min, max, exclusive_min, exclusive_max } = bounds(&meta, word == "range")?;
                if exclusive_min.is_some() || exclusive_max.is_some() {
                    return Err(syn::Error::new(meta.span(), "within `inner` a range has `min` and `max`"));
                }
                let (min, max) = (min.map(|min| quote!(min = #min,)), max.map(|max| quote!(max = #max,)));
                let word = syn::Ident::new(word, meta.span());
                quote!(#word(#min #max))
            }
            "regex" => {
                let pattern = pattern(&meta)?;
                quote!(regex(pattern = #pattern))
            }
            "email" => quote!(email),
            "url" => quote!(url),
            _ => return Err(syn::Error::new(meta.span(), "within `inner` stand length, range, regex, email and url")),
        };
        rules.inner.push(rule);
    }
    Ok(())
}

#[derive(Default)]
struct Bounds {
    min: Option<Expr>,
    max: Option<Expr>,
    exclusive_min: Option<Expr>,
    exclusive_max: Option<Expr>,
}

fn bounds(meta: &Meta, exclusive: bool) -> syn::Result<Bounds> {
    let forms = if exclusive {
        "say `min = ..`, `max = ..`, `exclusive_min = ..` or `exclusive_max = ..`"
    } else {
        "say `min = ..`, `max = ..` or `equal = ..`"
    };
    let fail = |span| syn::Error::new(span, forms);
    let Meta::List(within) = meta else { return Err(fail(meta.span())) };
    let mut bounds = Bounds::default();
    for meta in within.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)? {
        let Meta::NameValue(pair) = &meta else { return Err(fail(meta.span())) };
        let word = pair.path.get_ident().map(ToString::to_string).unwrap_or_default();
        let value = &pair.value;
        let places = match &*word {
            "min" => vec![&mut bounds.min],
            "max" => vec![&mut bounds.max],
            "equal" if !exclusive => vec![&mut bounds.min, &mut bounds.max],
            "exclusive_min" if exclusive => vec![&mut bounds.exclusive_min],
            "exclusive_max" if exclusive => vec![&mut bounds.exclusive_max],
            "message" | "code" => {
                let message = "what is said of a rule that is broken is edri's, so that it is the same for every way in: leave it out";
                return Err(syn::Error::new(meta.span(), message));
            }
            _ => return Err(fail(meta.span())),
        };
        for place in places {
            if place.replace(value.clone()).is_some() {
                return Err(syn::Error::new(meta.span(), "this bound is given twice"));
            }
        }
    }
    let number = |bound: &Option<Expr>| match bound {
        Some(Expr::Lit(ExprLit { lit: Lit::Int(number), .. })) => number.base10_parse::<u64>().ok(),
        _ => None,
    };
    if let (Some(min), Some(max)) = (number(&bounds.min), number(&bounds.max))
        && min > max
    {
        return Err(syn::Error::new(meta.span(), format!("nothing is at least {min} and at most {max}")));
    }
    let Bounds { min, max, exclusive_min, exclusive_max } = &bounds;
    if [min, max, exclusive_min, exclusive_max].iter().all(|bound| bound.is_none()) {
        return Err(fail(meta.span()));
    }
    Ok(bounds)
}

/// `regex("^[a-z]+$")`, `regex(pattern = "..")` or `regex(path = PATTERN)`.
fn pattern(meta: &Meta) -> syn::Result<Expr> {
    struct Pattern(Expr);

    impl Parse for Pattern {
        fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
            if input.peek(syn::Ident) && input.peek2(Token![=]) {
                let word: syn::Ident = input.parse()?;
                if word != "pattern" && word != "path" {
                    return Err(syn::Error::new(word.span(), "write `regex(\"^[a-z]+$\")`"));
                }
                input.parse::<Token![=]>()?;
            }
            input.parse().map(Self)
        }
    }

    match meta {
        Meta::List(within) => within.parse_args::<Pattern>().map(|pattern| pattern.0),
        _ => Err(syn::Error::new(meta.span(), "say which: `regex(\"^[a-z]+$\")`")),
    }
}

/// `custom(check)`, `custom(function = check)` or `custom(function = "check")`.
fn function(meta: &Meta) -> syn::Result<Path> {
    struct Function(Path);

    impl Parse for Function {
        fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
            if input.peek(syn::Ident) && input.peek2(Token![=]) {
                let word: syn::Ident = input.parse()?;
                if word != "function" {
                    return Err(syn::Error::new(word.span(), "name a function: `custom(check)`"));
                }
                input.parse::<Token![=]>()?;
            }
            if input.peek(LitStr) {
                return input.parse::<LitStr>()?.parse().map(Self);
            }
            input.parse().map(Self)
        }
    }

    match meta {
        Meta::List(within) => within.parse_args::<Function>().map(|function| function.0),
        _ => Err(syn::Error::new(
            meta.span(),
            "name a function: `custom(check)`, with `fn check(value: &T) -> Result<(), String>`",
        )),
    }
}

/// What a field is, as far as its type's name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Bool,
    List,
    Map,
    Unknown,
}

impl Kind {
    pub(crate) fn of(ty: &Type) -> Self {
        match ty {
            Type::Path(path) => {
                let Some(last) = path.path.segments.last() else { return Self::Unknown };
                let name = last.ident.to_string();
                match &*name {
                    "String" | "str" | "char" => Self::Text,
                    "bool" => Self::Bool,
                    "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "i128"
                    | "isize" | "f32" | "f64" => Self::Number,
                    name if name.starts_with("NonZero") => Self::Number,
                    "Vec" | "VecDeque" | "HashSet" | "BTreeSet" | "Bytes" => Self::List,
                    "HashMap" | "BTreeMap" | "IndexMap" => Self::Map,
                    "Option" | "Box" | "Arc" | "Rc" | "Cow" => argument(ty).map_or(Self::Unknown, Self::of),
                    _ => Self::Unknown,
                }
            }
            Type::Array(_) | Type::Slice(_) => Self::List,
            Type::Group(group) => Self::of(&group.elem),
            Type::Paren(paren) => Self::of(&paren.elem),
            _ => Self::Unknown,
        }
    }

    fn require(self, kinds: &[Self], span: Span, message: &str) -> syn::Result<()> {
        if self == Self::Unknown || kinds.contains(&self) { Ok(()) } else { Err(syn::Error::new(span, message)) }
    }
}

/// The last type in the angle brackets of this one.
fn argument(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else { return None };
    arguments.args.iter().rev().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// The items of a list, also of one that may be left out.
pub(crate) fn item_of(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Array(array) => Some(&array.elem),
        Type::Path(path) => {
            let name = path.path.segments.last()?.ident.to_string();
            match &*name {
                "Vec" | "VecDeque" | "HashSet" | "BTreeSet" => argument(ty),
                "Option" | "Box" | "Arc" => item_of(argument(ty)?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The keywords that bound a length. Each says something of one type only, so all of them stand where the type is not known.
fn length_keywords(kind: Kind, prefix: &str, span: Span) -> syn::Result<Vec<&'static str>> {
    let [text, items, entries] = match prefix {
        "min" => ["minLength", "minItems", "minProperties"],
        _ => ["maxLength", "maxItems", "maxProperties"],
    };
    match kind {
        Kind::Text => Ok(vec![text]),
        Kind::List => Ok(vec![items]),
        Kind::Map => Ok(vec![entries]),
        Kind::Unknown => Ok(vec![text, items, entries]),
        Kind::Number | Kind::Bool => {
            Err(syn::Error::new(span, "`length` is for texts, lists and maps; a number has a `range`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use quote::ToTokens as _;
    use syn::{DeriveInput, parse_quote};

    use super::*;

    fn check(input: DeriveInput, rest: &TokenStream, expect: &[&str]) {
        let mut errors = Vec::new();
        let ruled = take(&input, &mut errors).expect("has rules");
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, expect, "{}", input.to_token_stream());
        if errors.is_empty() {
            assert_eq!(ruled.rest.to_string(), rest.to_string());
        }
    }

    fn refused(input: DeriveInput, expect: &str) {
        check(input, &TokenStream::new(), &[expect]);
    }

    #[test]
    fn rules_become_the_keywords_of_the_fields_schema() {
        let item = parse_quote!(
            #[validate(custom(whole))]
            struct A {
                #[validate(length(min = 1, max = 80), email)]
                a: Option<String>,
                #[validate(length(equal = 2), inner(length(max = 5)))]
                b: Vec<String>,
                #[validate(length(max = MANY))]
                c: Name,
                #[validate(range(min = 1, exclusive_max = 9), custom(function = "odd"))]
                d: u8,
                #[validate(regex("^a$"))]
                e: String,
            }
        );
        let rest = quote!(
            struct A {
                #[schemars(extend("minLength" = 1, "maxLength" = 80, "format" = "email"))]
                a: Option<String>,
                #[schemars(extend("minItems" = 2, "maxItems" = 2, "x-edri-length" = true))]
                #[schemars(inner(length(max = 5,)))]
                b: Vec<String>,
                #[schemars(extend("maxLength" = MANY, "maxItems" = MANY, "maxProperties" = MANY))]
                c: Name,
                #[schemars(extend("minimum" = 1, "exclusiveMaximum" = 9))]
                d: u8,
                #[schemars(extend("pattern" = "^a$"))]
                e: String,
            }
        );
        check(item, &rest, &[]);
    }

    #[test]
    fn a_rule_that_would_not_hold_is_refused_with_what_to_write() {
        refused(
            parse_quote!(
                struct A {
                    #[validate(lenght(min = 1))]
                    a: String,
                }
            ),
            "no JSON Schema holds the rule `lenght` (did you mean `length`?); the rules are `length`, `range`, `regex`, \
             `email`, `url`, `inner` and `custom`",
        );
        refused(
            parse_quote!(
                struct A {
                    #[validate(length(min = 1))]
                    a: u32,
                }
            ),
            "`length` is for texts, lists and maps; a number has a `range`",
        );
        refused(
            parse_quote!(
                struct A {
                    #[validate(range(min = 1))]
                    a: String,
                }
            ),
            "`range` is for numbers",
        );
        refused(
            parse_quote!(
                struct A {
                    #[serde(alias = "b")]
                    #[validate(email)]
                    a: String,
                }
            ),
            "a field with `#[serde(alias)]` has no rules: what comes under another name would pass: leave the alias out",
        );
        refused(
            parse_quote!(
                struct A {
                    #[validate(length(min = 3, max = 2))]
                    a: String,
                }
            ),
            "nothing is at least 3 and at most 2",
        );
        refused(
            parse_quote!(
                struct A {
                    #[validate(length(max = 2, message = "short!"))]
                    a: String,
                }
            ),
            "what is said of a rule that is broken is edri's, so that it is the same for every way in: leave it out",
        );
    }
}
