//! The declaration under an attribute: the item as it was written, and the derives it gets.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote};
use syn::parse::{ParseStream, Parser as _};
use syn::{Attribute, DeriveInput, LitStr, Meta, Path, Token};

use crate::exposure;
use crate::options::path_text;
use crate::rules::{self, Ruled};
use crate::wire::{metas, text};

/// A struct or enum, understood and as it was written.
pub(crate) struct Item {
    pub(crate) input: DeriveInput,
    /// Everything behind the attributes, but for the `#[http(..)]` of fields, which nobody else would know.
    rest: TokenStream,
    /// Rules of the user's own for the whole.
    pub(crate) custom: Vec<Path>,
    /// The same for fields: of which variant, if of one, and the number of the field.
    pub(crate) custom_fields: Vec<(Option<usize>, usize, Path)>,
    /// What is wrong with the rules.
    pub(crate) wrong_rules: Vec<syn::Error>,
}

impl Item {
    /// Reads the declaration. `attribute` is the name of the attribute above it.
    pub(crate) fn parse(item: TokenStream, attribute: &str) -> syn::Result<Self> {
        let split = |input: ParseStream<'_>| {
            input.call(Attribute::parse_outer)?;
            input.parse::<TokenStream>()
        };
        let rest = split.parse2(item.clone())?;
        let input: DeriveInput = syn::parse2(item).map_err(|error| {
            let is_type = rest.clone().into_iter().any(|token| matches!(&*token.to_string(), "struct" | "enum"));
            if is_type { error } else { wrong_item(rest.clone(), attribute) }
        })?;
        match &input.data {
            syn::Data::Union(union) => Err(syn::Error::new(
                union.union_token.span,
                "a union does not say which of its fields holds, so it cannot be sent: use an enum",
            )),
            _ => Ok(Self::ruled(input, rest)),
        }
    }

    fn ruled(input: DeriveInput, rest: TokenStream) -> Self {
        let mut wrong_rules = Vec::new();
        let ruled = rules::take(&input, &mut wrong_rules);
        let ruled = ruled.unwrap_or(Ruled { rest, custom: Vec::new(), custom_fields: Vec::new() });
        let Ruled { rest, custom, custom_fields } = ruled;
        Self { input, rest: exposure::without_attributes(rest), custom, custom_fields, wrong_rules }
    }

    /// The item with the derives that edri needs and it does not have.
    ///
    /// The derives come first, or the user's `#[serde(..)]` would stand before the derive that makes them known. The
    /// attributes that name the crates come last, for they may belong to a derive of the user's.
    pub(crate) fn with_derives(&self, root: &Path) -> TokenStream {
        let Self { input: DeriveInput { attrs, .. }, rest, .. } = self;
        let own = |name: &str| !derives(attrs).iter().any(|path| path.segments.last().is_some_and(|s| s.ident == name));
        let (serialize, deserialize, schema) = (own("Serialize"), own("Deserialize"), own("JsonSchema"));
        let serialize = serialize.then(|| quote!(#root::__private::serde::Serialize,));
        let deserialize = deserialize.then(|| quote!(#root::__private::serde::Deserialize,));
        let schema = schema.then(|| quote!(#root::__private::schemars::JsonSchema,));

        let names_crate = |name| metas(attrs, name).iter().any(|meta| meta.path().is_ident("crate"));
        let crate_of = |name| LitStr::new(&format!("{}::__private::{name}", path_text(root)), Span::call_site());
        let serde = ((serialize.is_some() || deserialize.is_some()) && !names_crate("serde")).then(|| {
            let path = crate_of("serde");
            quote!(#[serde(crate = #path)])
        });
        // schemars reads serde's attributes too, and would take serde's crate for its own.
        let schemars = ((schema.is_some() || serde.is_some()) && !names_crate("schemars")).then(|| {
            let path = crate_of("schemars");
            quote!(#[schemars(crate = #path)])
        });
        let has_custom = !self.custom.is_empty() || !self.custom_fields.is_empty();
        let mark = has_custom.then(|| quote!(#[schemars(extend("x-edri-custom" = true))]));
        let attrs = attrs.iter().filter(|attribute| !rules::is_rule(attribute));
        let derive = (serialize.is_some() || deserialize.is_some() || schema.is_some())
            .then(|| quote!(#[derive(#serialize #deserialize #schema)]));
        quote! {
            #derive
            #(#attrs)*
            #serde
            #schemars
            #mark
            #rest
        }
    }

    /// The doc comment, its lines joined.
    pub(crate) fn doc(&self) -> String {
        let texts = self.input.attrs.iter().filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => text(&pair.value),
            _ => None,
        });
        let text = texts.collect::<Vec<_>>().join("\n");
        let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
        lines.join("\n").trim().to_owned()
    }
}

/// The paths in the `#[derive(..)]` among these attributes.
fn derives(attributes: &[Attribute]) -> Vec<Path> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("derive"))
        .filter_map(|attribute| {
            attribute.parse_args_with(syn::punctuated::Punctuated::<Path, Token![,]>::parse_terminated).ok()
        })
        .flatten()
        .collect()
}

fn wrong_item(rest: TokenStream, attribute: &str) -> syn::Error {
    let first = rest.into_iter().next().map_or_else(Span::call_site, |token| token.span());
    syn::Error::new(first, format!("`#[{attribute}]` belongs on a struct or an enum"))
}

/// The `#[cfg(..)]` among these attributes, for the code about what they stand on.
pub(crate) fn cfgs(attributes: &[Attribute]) -> TokenStream {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).map(|a| a.to_token_stream()).collect()
}
