//! `#[event]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Data, Field, Fields, Ident, Path, Type, parse_quote};

use crate::errors::Errors;
use crate::item::Item;
use crate::options::{Kind, Options};
use crate::suggest::{did_you_mean, list};
use crate::{checked, duration, exposure, name, wire};

pub(crate) fn expand(arguments: TokenStream, tokens: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let output = expand_with(arguments, tokens, &mut errors);
    let errors = errors.to_compile_error();
    quote!(#output #errors)
}

fn expand_with(arguments: TokenStream, tokens: TokenStream, errors: &mut Errors) -> TokenStream {
    let options = Options::of_event(arguments, errors);
    let root = options.root();
    let item = match Item::parse(tokens.clone(), "event") {
        Ok(item) => item,
        Err(error) => {
            errors.push(error);
            return tokens;
        }
    };
    item.wrong_rules.iter().cloned().for_each(|error| errors.push(error));
    let declaration = item.with_derives(&root);
    let implementation = Event::check(&options, &item, errors).map(|event| event.implementation(&root));
    quote!(#declaration #implementation)
}

/// An event whose types are known; with errors reported, what else is wrong has a stand-in.
struct Event<'a> {
    ident: &'a Ident,
    name: String,
    key: Option<Key<'a>>,
    time_limit_ms: Option<u64>,
    idempotent: bool,
    description: String,
    exposure: Option<exposure::Exposure>,
    shape: Shape<'a>,
    check: Option<TokenStream>,
}

struct Key<'a> {
    field: &'a Ident,
    ty: &'a Type,
    wire_name: String,
}

/// The kind, with the types that belong to it.
enum Shape<'a> {
    Notification,
    Request { response: &'a Type },
    Tunnel { up: &'a Type, down: &'a Type, result: Option<&'a Type> },
}

impl<'a> Event<'a> {
    /// Checks everything, and gives the event back unless its kind, one of its types or its own type is not known.
    fn check(options: &'a Options, item: &'a Item, errors: &mut Errors) -> Option<Self> {
        let ident = &item.input.ident;
        let generics = &item.input.generics;
        let generic = !generics.params.is_empty();
        if generic {
            let message = format!(
                "an event has one name and one schema, so `{ident}` cannot be generic: declare an event for each type \
                 it is needed with"
            );
            errors.add(generics.params.span(), message);
        }
        let name = check_name(options, ident, errors);
        let key = options.key.as_ref().and_then(|key| find_key(item, key).map_err(|error| errors.push(error)).ok());
        let time_limit_ms = options.time_limit.as_ref().and_then(|text| {
            duration::parse_ms(&text.value()).map_err(|message| errors.add(text.span(), message)).ok()
        });
        let description =
            options.description.as_ref().map_or_else(|| item.doc(), |text| text.value().trim().to_owned());
        let shape = Shape::check(options, errors)?;
        let exposure = exposure::check(options, item, errors);
        let idempotent = options.idempotent;
        let check = checked::body(item, &options.root());
        (!generic).then_some(Self { ident, name, key, time_limit_ms, idempotent, description, exposure, shape, check })
    }

    /// `impl Event` and the trait of the kind.
    fn implementation(&self, root: &Path) -> TokenStream {
        let Self { ident, name, key, time_limit_ms, idempotent, description, exposure, shape, check } = self;
        let private = quote!(#root::__private);
        let unit: Type = parse_quote!(());
        let (constructor, output, kind) = match shape {
            Shape::Notification => (quote!(notification), &unit, quote!(impl #private::Notification for #ident {})),
            Shape::Request { response } => (quote!(request), *response, quote!(impl #private::Request for #ident {})),
            Shape::Tunnel { up, down, result } => (
                quote!(tunnel),
                result.unwrap_or(&unit),
                quote! {
                    impl #private::Tunnel for #ident {
                        type Up = #up;
                        type Down = #down;
                    }
                },
            ),
        };
        let wire_name = option(key.as_ref().map(|key| &key.wire_name));
        let time_limit = option(time_limit_ms.map(|ms| quote!(#private::Duration::from_millis(#ms))));
        let exposure = option(exposure.as_ref().map(|exposure| exposure.tokens(&private)));
        let visit_key = key.as_ref().map(|Key { field, ty, .. }| {
            // A type that cannot be a key is shown where the field has it. The span keeps the marks of generated code,
            // or the lints of the user's crate would look into it.
            let at = Span::call_site().located_at(ty.span());
            let visit = quote_spanned!(at=> <#ty as #private::KeyField>::visit);
            quote! {
                fn visit_key(&self, visit: &mut dyn ::core::ops::FnMut(&str)) {
                    #visit(&self.#field, visit);
                }
            }
        });
        let check = check.as_ref().map(|body| {
            quote! {
                fn __check(&self, errors: &mut #private::check::FieldErrors) {
                    #body
                }
            }
        });
        // Which other events there are is no help to somebody whose type is none.
        quote! {
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            impl #private::Event for #ident {
                type Output = #output;

                fn descriptor() -> &'static #private::Descriptor {
                    static DESCRIPTOR: #private::LazyLock<#private::Descriptor> = #private::LazyLock::new(|| {
                        #private::Descriptor::#constructor::<#ident>(#private::TypedDeclaration {
                            name: #name,
                            key: #wire_name,
                            time_limit: #time_limit,
                            idempotent: #idempotent,
                            description: #description,
                            exposure: #exposure,
                        })
                    });
                    &DESCRIPTOR
                }

                #visit_key

                #check
            }

            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            #kind
        }
    }
}

impl<'a> Shape<'a> {
    fn check(options: &'a Options, errors: &mut Errors) -> Option<Self> {
        let (kind, span) = options.kind?;
        let mut required = |option: &str, ty: &'a Option<Type>, message: &str| {
            if !options.is_given(option) {
                errors.add(span, message);
            }
            ty.as_ref()
        };
        match kind {
            Kind::Notification => Some(Self::Notification),
            Kind::Request => {
                let message = "a request has a response: say its type, `response = Risk`";
                Some(Self::Request { response: required("response", &options.response, message)? })
            }
            Kind::Tunnel => {
                let up = required("up", &options.up, "say what the opener of the tunnel sends: `up = Chunk`");
                let down =
                    required("down", &options.down, "say what the worker of the tunnel sends: `down = Progress`");
                Some(Self::Tunnel { up: up?, down: down?, result: options.result.as_ref() })
            }
        }
    }
}

/// The event's name, checked; empty with an error.
fn check_name(options: &Options, ident: &Ident, errors: &mut Errors) -> String {
    let Some(text) = &options.name else {
        if let Some((_, kind)) = options.kind
            && !options.is_given("name")
        {
            let example = name::of_type(&ident.unraw().to_string());
            errors.add(kind, format!("an event needs a name, by which every node knows it: `name = \"{example}\"`"));
        }
        return String::new();
    };
    let name = text.value();
    if let Err(message) = name::check(&name, options.root.is_some()) {
        errors.add(text.span(), message);
        return String::new();
    }
    name
}

/// Finds the field that `key = ...` names.
fn find_key<'a>(item: &'a Item, key: &Ident) -> syn::Result<Key<'a>> {
    let owner = &item.input.ident;
    let fail = |message: String| syn::Error::new(key.span(), message);
    let fields = match &item.input.data {
        Data::Struct(data) => &data.fields,
        Data::Enum(_) | Data::Union(_) => {
            return Err(fail(format!("a key is a field, and the variants of `{owner}` share none: make it a struct")));
        }
    };
    match fields {
        Fields::Named(_) => {}
        Fields::Unnamed(_) => {
            return Err(fail(format!(
                "a key is a field with a name, and those of `{owner}` have none: write `struct {owner} {{ \
                 {key}: ... }}`"
            )));
        }
        Fields::Unit => return Err(fail(format!("a key is a field, and `{owner}` has none"))),
    }
    let names: Vec<_> = fields.iter().filter_map(|field| field.ident.as_ref()).map(|f| f.unraw().to_string()).collect();
    let wanted = key.unraw();
    let found = fields.iter().find_map(|field| match field {
        Field { ident: Some(ident), ty, .. } if ident.unraw() == wanted => Some((field, ident, ty)),
        _ => None,
    });
    let Some((field, ident, ty)) = found else {
        let known = || names.iter().map(String::as_str);
        let near = did_you_mean(&wanted.to_string(), known());
        let has = if names.is_empty() { "it has no fields".to_owned() } else { format!("it has {}", list(known())) };
        return Err(fail(format!("`{owner}` has no field `{wanted}`{near}; {has}")));
    };
    let wire_name = wire::name(&item.input.attrs, field, ident, key.span())?;
    Ok(Key { field: ident, ty, wire_name })
}

/// `Some(value)` or `None`, as code.
pub(crate) fn option(value: Option<impl quote::ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expands `#[event(arguments)] item` and compares its errors.
    fn check(arguments: TokenStream, item: TokenStream, expect: &[&str]) {
        let shown = format!("#[event({arguments})] {item}");
        let mut errors = Errors::default();
        expand_with(arguments, item, &mut errors);
        assert_eq!(errors.messages(), expect, "{shown}");
    }

    /// Checks the errors of an event with these arguments.
    fn check_arguments(arguments: TokenStream, expect: &[&str]) {
        check(
            arguments,
            quote!(
                struct QuakeRecorded {
                    region: String,
                    magnitude: f64,
                }
            ),
            expect,
        );
    }

    #[test]
    fn the_three_kinds_with_all_their_options_have_no_errors() {
        check_arguments(quote!(notification, name = "a", key = region, ttl = "5s", description = "x"), &[]);
        check_arguments(quote!(request, name = "a", response = Vec<(u8, u8)>, timeout = "2s", idempotent,), &[]);
        check_arguments(quote!(tunnel, up = A, down = B<C, D>, result = (), name = "a", idle_timeout = "1m"), &[]);
        check_arguments(quote!(notification, crate = crate, name = "edri.node.up"), &[]);
    }

    #[test]
    fn the_kind_comes_first() {
        check_arguments(
            quote!(),
            &["say what kind of event it is, `notification`, `request` or `tunnel`, and what it is called: \
               `#[event(notification, name = \"quake.recorded\")]`"],
        );
        check_arguments(
            quote!(notify, name = "a"),
            &["`notify` is no kind of event (did you mean `notification`?); the kinds are `notification`, `request` \
               and `tunnel`"],
        );
        check_arguments(
            quote!(name = "a", request, response = u8),
            &["the kind of the event comes first, as in `#[event(request, ...)]`; the kinds are `notification`, \
               `request` and `tunnel`"],
        );
        check_arguments(
            quote!(request, tunnel, name = "a", response = u8),
            &["this event is a request already; an event has one kind"],
        );
    }

    #[test]
    fn an_unknown_option_is_answered_with_those_there_are() {
        check_arguments(
            quote!(request, name = "a", response = u8, time_out = "2s"),
            &["unknown option `time_out` (did you mean `timeout`?); the options of a request are `name`, `key`, \
               `timeout`, `response`, `idempotent`, `http`, `expose`, `page`, \
              `form`, `then`, `cache`, `public`, `stale_on`, `description` and `crate`"],
        );
        check_arguments(
            quote!(notification, name = "a", route = path(x, y)),
            &["unknown option `route`; the options of a notification are `name`, `key`, `ttl`, `http`, `expose`, \
               `page`, `form`, `then`, `description` and `crate`"],
        );
    }

    #[test]
    fn an_option_of_another_kind_is_answered_with_the_one_of_this_kind() {
        check_arguments(
            quote!(request, name = "a", response = u8, ttl = "2s"),
            &["`ttl` is an option of a notification; the one of a request is `timeout`: `timeout = \"2s\"`"],
        );
        check_arguments(
            quote!(tunnel, name = "a", up = u8, down = u8, response = Vec<(u8, u8)>),
            &["`response` is an option of a request; the one of a tunnel is `result`: `result = Summary`"],
        );
        check_arguments(
            quote!(notification, name = "a", idempotent),
            &["`idempotent` is an option of a request; the options of a notification are `name`, `key`, `ttl`, \
               `http`, `expose`, `page`, `form`, `then`, `description` and `crate`"],
        );
    }

    #[test]
    fn templates_what_comes_next_and_for_how_long_an_answer_holds_are_checked() {
        let check = |arguments: TokenStream, expect: &[&str]| {
            check_arguments(quote!(request, name = "a", response = u8, http = "GET /a", #arguments), expect);
        };
        check(quote!(page = "a/b.html", form = "c.html", then = "/a?b={magnitude}", cache = "60s", public), &[]);
        check(quote!(cache = "1m", stale_on = "a.changed", stale_on = "b.changed"), &[]);
        let template = |name: &str| {
            format!("{name:?} is no template: write its path in the folder of pages, like \"tickets/list.html\"")
        };
        check(quote!(page = "../b.html"), &[&template("../b.html")]);
        check(quote!(form = "/b.html"), &[&template("/b.html")]);
        let next =
            |path: &str| format!("{path:?} is no path to go on to: write one of this host, like \"/tickets/{{id}}\"");
        for path in ["//evil.example", "/{region}", "https://a", "a b", ""] {
            check(quote!(then = #path), &[&next(path)]);
        }
        check(quote!(public), &["`public` says more of `cache`: say for how long too, `cache = \"60s\"`"]);
        check(
            quote!(cache = "0s"),
            &["a limit of zero would be over before it began: write how long, or leave the option away"],
        );
        check_arguments(
            quote!(request, name = "a", response = u8, page = "a.html"),
            &["`page` is for an event that is reached by HTTP: say `expose` or `http = \"...\"` too"],
        );
    }

    #[test]
    fn a_route_is_checked_with_the_fields_it_names() {
        let route = |route: &str, expect: &[&str]| {
            check_arguments(quote!(request, name = "a", response = u8, http = #route), expect);
        };
        route("GET /quakes/{region}", &[]);
        check_arguments(quote!(request, name = "a", response = u8, http = "GET /a", http = "POST /b", expose), &[]);
        route(
            "GET /quakes/{regoin}",
            &[
                "`QuakeRecorded` has no field `regoin` for the place in \"GET /quakes/{regoin}\" (did you mean `region`?); \
               it has `region` and `magnitude`",
            ],
        );
        route(
            "FETCH /a",
            &["\"FETCH /a\" is no route: the method is GET, POST, PUT, PATCH or DELETE; write it like \
               \"GET /risk/{region}\""],
        );
        check_arguments(
            quote!(notification, name = "a", http = "GET /a"),
            &[
                "\"GET /a\" is no route: a GET changes nothing, and a notification is there to: use POST; write it like \
               \"GET /risk/{region}\"",
            ],
        );
        check_arguments(
            quote!(notification, name = "a", expose = true),
            &["`expose` takes no value: it stands alone, or is left away"],
        );
    }

    #[test]
    fn a_field_comes_from_a_header_or_a_cookie_of_an_exposed_event() {
        let of_field = |arguments: TokenStream, place: TokenStream, expect: &[&str]| {
            check(
                arguments,
                quote!(
                    struct Ask {
                        #[http(#place)]
                        tenant: String,
                    }
                ),
                expect,
            );
        };
        let exposed = || quote!(notification, name = "a", expose);
        of_field(exposed(), quote!(header = "x-tenant"), &[]);
        of_field(exposed(), quote!(cookie = "tenant"), &[]);
        of_field(
            exposed(),
            quote!(query = "tenant"),
            &["a field comes from `header = \"x-tenant\"` or `cookie = \"session\"`"],
        );
        of_field(
            exposed(),
            quote!(header = "x tenant"),
            &["the name of a header or a cookie is letters, digits and `-`"],
        );
        of_field(
            quote!(notification, name = "a"),
            quote!(header = "x-tenant"),
            &["the event cannot be reached by HTTP: say `expose` or `http = \"...\"` in its `#[event(..)]`"],
        );
        let output = expand(
            exposed(),
            quote!(
                struct Ask {
                    #[http(header = "x-tenant")]
                    #[serde(default)]
                    tenant: String,
                }
            ),
        );
        let text = output.to_string();
        assert!(!text.contains("[http") && text.contains("[serde (default)]"), "{text}");
    }

    #[test]
    fn every_error_is_reported_at_once() {
        check_arguments(
            quote!(request, name = quake.recorded, key = regoin, timeout = "2", timeout = "3s", name),
            &[
                "`name` takes a text in quotes: `name = \"quake.recorded\"`",
                "`timeout` is given twice: keep one of them",
                "`name` is given twice: keep one of them",
                "`QuakeRecorded` has no field `regoin` (did you mean `region`?); it has `region` and `magnitude`",
                "\"2\" has no unit: write a number and `ms`, `s`, `m` or `h`, like \"500ms\" or \"2s\"",
                "a request has a response: say its type, `response = Risk`",
            ],
        );
    }

    #[test]
    fn what_an_event_needs_is_asked_for() {
        check_arguments(
            quote!(notification),
            &["an event needs a name, by which every node knows it: `name = \"quake.recorded\"`"],
        );
        check_arguments(quote!(request, name = "a"), &["a request has a response: say its type, `response = Risk`"]);
        check_arguments(
            quote!(tunnel, name = "a", up = "Chunk"),
            &[
                "`up` takes a type, without quotes: `up = Chunk`",
                "say what the worker of the tunnel sends: `down = Progress`",
            ],
        );
        check_arguments(quote!(notification name = "a"), &["expected `,` before the next option"]);
    }

    #[test]
    fn a_value_of_the_wrong_form_is_answered_with_the_right_one() {
        let check = |argument: TokenStream, expect: &str| {
            check_arguments(quote!(request, name = "a", response = u8, #argument), &[expect]);
        };
        check(quote!(key = "region"), "`key` takes the name of a field, without quotes: `key = region`");
        check(quote!(key), "`key` needs the name of a field, without quotes: `key = region`");
        check(quote!(key =), "`key` needs the name of a field, without quotes: `key = region`");
        check(quote!(key(region)), "`key` takes the name of a field, without quotes: `key = region`");
        check(quote!(key = region.id), "expected `,` before the next option");
        check(quote!(timeout = 2), "`timeout` takes a text in quotes: `timeout = \"2s\"`");
        check(quote!(idempotent = true), "`idempotent` takes no value: it stands alone, or is left away");
        check(quote!(crate = "edri"), "`crate` takes a path, without quotes: `crate = edri`");
        check(
            quote!("2s"),
            "an option begins with its name; the options are `name`, `key`, `timeout`, `response`, `idempotent`, `http`, \
             `expose`, `page`, `form`, `then`, `cache`, `public`, `stale_on`, `description` and `crate`",
        );
    }

    #[test]
    fn a_key_is_a_named_field() {
        let check =
            |item: TokenStream, expect: &str| check(quote!(notification, name = "a", key = region), item, &[expect]);
        check(
            quote!(
                struct Quake {}
            ),
            "`Quake` has no field `region`; it has no fields",
        );
        check(
            quote!(
                struct Quake(String);
            ),
            "a key is a field with a name, and those of `Quake` have none: write `struct Quake { region: ... }`",
        );
        check(
            quote!(
                struct Quake;
            ),
            "a key is a field, and `Quake` has none",
        );
        check(
            quote!(
                enum Quake {
                    A { region: String },
                }
            ),
            "a key is a field, and the variants of `Quake` share none: make it a struct",
        );
    }

    #[test]
    fn an_event_is_a_struct_or_enum_without_parameters() {
        let check = |item: TokenStream, expect: &str| check(quote!(notification, name = "a"), item, &[expect]);
        check(
            quote!(
                struct Quake<T> {
                    of: T,
                }
            ),
            "an event has one name and one schema, so `Quake` cannot be generic: declare an event for each type it is \
             needed with",
        );
        check(
            quote!(
                fn quake() {}
            ),
            "`#[event]` belongs on a struct or an enum",
        );
        check(
            quote!(
                pub union Quake {
                    a: u8,
                }
            ),
            "a union does not say which of its fields holds, so it cannot be sent: use an enum",
        );
    }

    #[test]
    fn a_declaration_with_errors_keeps_its_type_and_its_traits() {
        let item = quote!(
            struct Quake {
                region: String,
            }
        );
        let output = expand(quote!(notification, name = "a b", key = x, what), item).to_string();
        for part in ["struct Quake { region : String", ":: Serialize", "Event for Quake", "Notification for Quake"] {
            assert!(output.contains(part), "{part} is missing: {output}");
        }
    }
}
