//! The end of a tenant's keys, which cannot be undone: the tenant's name is typed again first, or `--yes`.

use std::io::{self, BufRead, IsTerminal as _, Write};

use serde_json::Value;

use super::connection::Method;
use super::show::cell;
use super::{ClientError, ClientOptions, one};

/// Whether whoever types it is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// It was given with the command.
    Given,
    /// It is asked for, where there is a terminal.
    Asked,
}

/// Destroys the keys of a tenant.
pub(super) async fn destroy(
    tenant: &str,
    confirmation: Confirmation,
    client: &ClientOptions,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    match confirmation {
        Confirmation::Given => {}
        Confirmation::Asked if io::stdin().is_terminal() => {
            // Not among the answer, which may be JSON for a program.
            confirm(tenant, &mut io::stdin().lock(), &mut io::stderr())?;
        }
        Confirmation::Asked => {
            let why = format!(
                "nothing is destroyed: it cannot be undone, and there is no terminal to ask at; to go on, run: vestibule tenant \
                 destroy-keys {tenant} --yes"
            );
            return Err(ClientError::NotConfirmed(why));
        }
    }
    let path = ["tenants", tenant, "destroy-keys"];
    one(client, Method::Post, &path, destroyed, output).await
}

/// Asks for the tenant's name once more.
fn confirm(
    tenant: &str,
    input: &mut dyn BufRead,
    prompt: &mut dyn Write,
) -> Result<(), ClientError> {
    write!(
        prompt,
        "This destroys the keys of tenant {tenant} for good: what they sealed opens nowhere again, in no restored backup \
         either.\nType the tenant's name to go on: "
    )
    .and_then(|()| prompt.flush())
    .map_err(ClientError::Output)?;
    let mut typed = String::new();
    input.read_line(&mut typed).map_err(ClientError::Input)?;
    match typed.trim() == tenant {
        true => Ok(()),
        false => Err(ClientError::NotConfirmed(format!(
            "nothing is destroyed: what was typed is not {tenant}"
        ))),
    }
}

/// Destroyed data keys.
fn destroyed(answer: &Value) -> String {
    let [tenant, through, own] = ["tenant", "through", "own_file"].map(|key| cell(answer, &[key]));
    if own != "-" {
        return format!(
            "the data keys of {tenant} up to number {through} are destroyed, and so is its own key-encryption key {own}\n\
             Delete every copy of that file: then they open in no backup, for nobody.\n"
        );
    }
    format!(
        "the data keys of {tenant} up to number {through} are destroyed; this Vestibule opens them in no restored backup either\n\
         Whoever holds an older backup and the key-encryption key could open them with tools of his own. To end that too: \
         vestibule keys rotate, then delete the retired key with all its copies.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tenants_name_typed_again_confirms() {
        for (typed, confirmed) in [
            ("acme\n", true),
            ("  acme \n", true),
            ("acme", true),
            ("yes\n", false),
            ("ACME\n", false),
            ("\n", false),
            ("", false),
        ] {
            let mut prompt = Vec::new();
            let answer = confirm("acme", &mut typed.as_bytes(), &mut prompt);
            assert_eq!(answer.is_ok(), confirmed, "{typed:?}");
            let prompt = String::from_utf8(prompt).unwrap();
            assert!(prompt.contains("tenant acme for good"), "{prompt}");
        }
    }
}
