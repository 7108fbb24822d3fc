//! `#[data]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Fields, Path, WherePredicate, parse_quote};

use crate::checked;
use crate::errors::Errors;
use crate::item::{Item, cfgs};
use crate::options::Options;

pub(crate) fn expand(arguments: TokenStream, tokens: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let output = expand_with(arguments, tokens, &mut errors);
    let errors = errors.to_compile_error();
    quote!(#output #errors)
}

fn expand_with(arguments: TokenStream, tokens: TokenStream, errors: &mut Errors) -> TokenStream {
    let root = Options::of_data(arguments, errors).root();
    let item = match Item::parse(tokens.clone(), "data") {
        Ok(item) => item,
        Err(error) => {
            errors.push(error);
            return tokens;
        }
    };
    if let Some(borrowed) = item.input.generics.lifetimes().next() {
        errors.add(
            borrowed.lifetime.span(),
            "what edri carries owns its contents, so it cannot borrow: use `String` for `&str`, `Vec<T>` or `Bytes` \
             for a slice",
        );
        return tokens;
    }
    item.wrong_rules.iter().cloned().for_each(|error| errors.push(error));
    let declaration = item.with_derives(&root);
    let implementation = implementation(&item, &root);
    quote!(#declaration #implementation)
}

/// `impl Item`.
fn implementation(item: &Item, root: &Path) -> TokenStream {
    let input: &DeriveInput = &item.input;
    let ident = &input.ident;
    let mut generics = input.generics.clone();
    if !generics.params.is_empty() {
        // Which bounds the parameters need is for the derives to say, so ask for what they give.
        let bound: WherePredicate = parse_quote! {
            Self: #root::__private::serde::Serialize
                + #root::__private::serde::de::DeserializeOwned
                + #root::__private::schemars::JsonSchema
                + ::core::marker::Send
                + ::core::marker::Sync
                + 'static
        };
        generics.make_where_clause().predicates.push(bound);
    }
    let (parameters, arguments, bounds) = generics.split_for_impl();
    let weight = match &input.data {
        Data::Struct(data) => weight_of_fields(&data.fields, root, &quote!(Self)),
        Data::Enum(data) => {
            let arms = data.variants.iter().map(|variant| {
                let (cfg, name) = (cfgs(&variant.attrs), &variant.ident);
                let arm = weight_of_fields(&variant.fields, root, &quote!(Self::#name));
                quote!(#cfg #arm)
            });
            quote!(#(#arms)*)
        }
        Data::Union(_) => TokenStream::new(),
    };
    let check = checked::body(item, root);
    // A match on a place without variants is only exhaustive on the place itself.
    let place = if weight.is_empty() { quote!(*self) } else { quote!(self) };
    quote! {
        #[automatically_derived]
        impl #parameters #root::__private::Item for #ident #arguments #bounds {
            fn weight(&self) -> usize {
                #[allow(unused_imports)]
                use #root::__private::weigh::{Known as _, Unknown as _};
                let weight = ::core::mem::size_of_val(self);
                match #place { #weight }
            }

            fn __check(&self, errors: &mut #root::__private::check::FieldErrors) {
                #root::__private::check::Checked::check(self, errors);
            }
        }

        #[automatically_derived]
        impl #parameters #root::__private::check::Checked for #ident #arguments #bounds {
            fn check(&self, errors: &mut #root::__private::check::FieldErrors) {
                let _ = &errors;
                #check
            }
        }
    }
}

/// The arm of a match that weighs what these fields hold.
fn weight_of_fields(fields: &Fields, root: &Path, pattern: &TokenStream) -> TokenStream {
    let bound: Vec<_> = (0..fields.len()).map(|i| format_ident!("field_{i}", span = Span::mixed_site())).collect();
    let members = fields.members();
    let cfg: Vec<_> = fields.iter().map(|field| cfgs(&field.attrs)).collect();
    quote! {
        #pattern { #(#cfg #members: #bound),* } => {
            #(#cfg let weight = weight + (&&#root::__private::weigh::Field(#bound)).heap();)*
            weight
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_refused_with_what_to_use_instead() {
        let check = |arguments: TokenStream, item: TokenStream, expect: &str| {
            let mut errors = Errors::default();
            expand_with(arguments, item, &mut errors);
            assert_eq!(errors.messages(), [expect]);
        };
        check(
            quote!(),
            quote!(
                struct Line<'a>(&'a str);
            ),
            "what edri carries owns its contents, so it cannot borrow: use `String` for `&str`, `Vec<T>` or `Bytes` \
             for a slice",
        );
        check(
            quote!(),
            quote!(union Either { a: u8, b: i8 }),
            "a union does not say which of its fields holds, so it cannot be sent: use an enum",
        );
        check(
            quote!(),
            quote!(
                type Short = u8;
            ),
            "`#[data]` belongs on a struct or an enum",
        );
        check(
            quote!(name = "x"),
            quote!(
                struct Unit;
            ),
            "unknown option `name`; the only option is `crate`",
        );
    }
}
