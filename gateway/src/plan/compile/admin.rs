//! Compiles the admin API's addresses, and warns about exposed admin addresses, secrets and files that control access.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{self, At, Code, Mistake, admin_tokens};
use crate::plan::AdminAddresses;
use crate::plan::admin_token::{AdminToken, NamedToken};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::named_files;

/// Returns the admin addresses, if any, and the token for changes; reports mistakes and warnings about them.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> Option<(AdminAddresses, Option<AdminToken>)> {
    let config::Admin {
        address: written_address,
        token_file,
        read_token_file,
        // Read in `tokens`.
        tokens_file,
        health_address,
    } = compiler.config.admin.as_ref()?;
    let token = token_file.as_ref().map(|file| read_token(compiler, file));
    let for_reading = read_token_file.as_ref().map(|file| read_token(compiler, file));
    if let (Some(Some(token)), Some(Some(for_reading))) = (&token, &for_reading)
        && token.is_same(for_reading)
    {
        let at = read_token_file.as_ref().and_then(At::span);
        compiler.mistake(
            Mistake::new(
                Code::Conflict,
                at,
                "whoever may read could change everything: both tokens are the same",
            )
            .related(token_file.as_ref().and_then(At::span), "the token for changes")
            .hint("make another with `openssl rand -hex 32`"),
        );
    }
    doubt_revocations(compiler);
    let address = **written_address;
    if !is_loopback(address) {
        let at = written_address.span();
        let message = "`admin.address` can be reached from other machines";
        compiler.warnings.push(
            Mistake::new(Code::Doubtful, at, message)
                .label("is not a loopback address")
                .hint(format!(
                    "nothing is encrypted there, tokens included: write `127.0.0.1:{}`, or keep others out",
                    address.port()
                )),
        );
        if read_token_file.is_none() && tokens_file.is_none() {
            let message = "`admin` shows routes, tenants, keys' names and refusals to whoever asks";
            let hint = "write a `read_token_file`; probes need no token, and can have a `health_address`";
            compiler
                .warnings
                .push(Mistake::new(Code::Doubtful, at, message).hint(hint));
        }
    }
    let health = health_address.as_ref();
    if let Some(health) = health.filter(|health| health.value == address && address.port() != 0) {
        compiler.mistake(
            Mistake::new(
                Code::Conflict,
                health.span(),
                "`admin.health_address` is `admin.address`",
            )
            .hint("leave it out: `/livez` and `/readyz` are served there as well"),
        );
    }
    let addresses = AdminAddresses {
        address,
        health: health.map(|health| health.value),
    };
    Some((addresses, token.flatten()))
}

/// Reads the file of tokens, if the config names one.
pub(super) fn tokens(compiler: &mut Compiler<'_>) -> Option<Vec<NamedToken>> {
    let file = compiler.config.admin.as_ref()?.tokens_file.as_ref()?;
    compiler.look_after(file);
    match admin_tokens::load(file, compiler.sources) {
        Ok(read) => {
            let admin_tokens::AdminTokenFile { tokens } = read;
            Some(tokens.iter().map(NamedToken::new).collect())
        }
        Err(mistakes) => {
            for mistake in mistakes.iter() {
                compiler.mistake(Mistake {
                    at: mistake.at.or(file.span()),
                    ..mistake.clone()
                });
            }
            None
        }
    }
}

/// Warns if revocations made through the admin API would be lost at a restart.
fn doubt_revocations(compiler: &mut Compiler<'_>) {
    let callers = &compiler.config.callers;
    let token_file = compiler
        .config
        .admin
        .as_ref()
        .and_then(|admin| admin.token_file.as_ref());
    let is_anything_revocable = callers.api_keys.is_some()
        || callers.basic.is_some()
        || callers.mtls.is_some()
        || callers.external.is_some()
        || !callers.jwt.is_empty();
    let Some(token_file) = token_file.filter(|_| is_anything_revocable && callers.revocations.is_none()) else {
        return;
    };
    let message = "what is revoked by the admin API is good again after a restart: there is no `callers.revocations`";
    compiler.warnings.push(
        Mistake::new(Code::Doubtful, token_file.span(), message)
            .label("lets credentials be revoked")
            .hint("write `callers: { revocations: { file: revoked.yaml } }`: the file keeps them"),
    );
}

fn read_token(compiler: &mut Compiler<'_>, file: &At<PathBuf>) -> Option<AdminToken> {
    doubt_token(compiler, file);
    AdminToken::read(file)
        .map_err(|why| {
            compiler.mistake(Mistake::new(
                Code::Unreadable,
                file.span(),
                format!("cannot use {}: {why}", file.display()),
            ));
        })
        .ok()
}

/// Warns if anyone but the owner can read or write a token file.
fn doubt_token(compiler: &mut Compiler<'_>, file: &At<PathBuf>) {
    named_files::doubt(compiler, file, file.span(), |found| found);
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for (address, expected) in [
            ("127.0.0.1:9900", true),
            ("127.8.0.1:9900", true),
            ("[::1]:9900", true),
            ("[::ffff:127.0.0.1]:9900", true),
            ("0.0.0.0:9900", false),
            ("[::]:9900", false),
            ("10.0.0.1:9900", false),
            ("[::ffff:10.0.0.1]:9900", false),
        ] {
            assert_eq!(is_loopback(address.parse().unwrap()), expected, "{address}");
        }
    }
}
