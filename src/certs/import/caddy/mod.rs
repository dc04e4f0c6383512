//! What another server kept: the tar of `caddy storage export`, whichever storage it came from.
//!
//! Nothing in it is trusted: paths are keys and never become paths, sizes and counts are bounded, and every certificate
//! is judged like any other that is brought. First the archive's headers are read, which tells where each file lies;
//! then one certificate after the other, so that memory holds the names and one file at a time.
//!
//! The layout, as Caddy 2.11 writes it (the storage of `CertMagic`):
//!
//! | path | content |
//! |---|---|
//! | `certificates/ISSUER/NAME/NAME.crt` | the chain, PEM, leaf first |
//! | `certificates/ISSUER/NAME/NAME.key` | the private key, PEM: SEC 1 for the default ECDSA |
//! | `certificates/ISSUER/NAME/NAME.json` | `issuer_data`: the directory as `ca`, the account's URL as `account` |
//! | `acme/ISSUER/users/MAIL/*.json` | the account: `location` is its URL |
//! | `acme/ISSUER/users/MAIL/*.key` | the account's key |
//!
//! `ISSUER` is the directory's host and path with hyphens, NAME has `wildcard_` for `*`. Everything else in the archive
//! (Caddy's own CA, locks, challenges) is passed over.

mod index;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;

use crate::base::secret::Secret;

pub use index::ExportError;

use index::{Files, Index, Place};

/// What `CertMagic` calls the issuer that is Caddy's own CA.
const LOCAL: &str = "local";
const BY_CADDY: &str = "Caddy's own CA issued it, which clients here need not trust: its name gets one from a [[ca]] when it is registered";

/// An opened archive.
pub struct Export<R> {
    reader: R,
    index: Index,
    /// The next certificate's place.
    next: usize,
}

/// Counts, never what is in it.
impl<R> fmt::Debug for Export<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("certificates", &self.index.certificates.len())
            .field("accounts", &self.index.accounts.len())
            .finish_non_exhaustive()
    }
}

/// A certificate of the archive, not judged yet.
pub struct Certificate {
    /// What Caddy calls it: its first name.
    pub name: String,
    /// The chain, PEM.
    pub chain: Secret,
    /// Its private key, PEM.
    pub key: Secret,
    /// The directory of the authority that issued it, where that is known.
    pub directory: Option<String>,
    /// The URL of the account that ordered it, where that is known.
    pub account: Option<String>,
}

/// An ACME account of the archive.
pub struct Account {
    /// The issuer that it is kept under.
    pub issuer: String,
    /// The directory of its authority, where a certificate of the same issuer tells it.
    pub directory: Option<String>,
    /// Its URL.
    pub url: String,
    /// Its private key, PEM.
    pub key: Secret,
}

/// Something of the archive that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// A name, or an account's mail address.
    pub what: String,
    /// Why, in words.
    pub why: &'static str,
}

/// What is read of a certificate's metadata.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    issuer_data: IssuerData,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IssuerData {
    ca: Option<String>,
    account: Option<String>,
}

/// What is read of an account.
#[derive(Deserialize)]
struct Registration {
    location: String,
}

impl<R: Read + Seek> Export<R> {
    /// Reads the archive's headers.
    ///
    /// # Errors
    /// [`ExportError`]: it is no such archive, or beyond the limits.
    pub fn open(reader: R) -> Result<Self, ExportError> {
        let (index, reader) = Index::read(reader)?;
        Ok(Self {
            reader,
            index,
            next: 0,
        })
    }

    /// The accounts.
    ///
    /// # Errors
    /// Those of the file.
    pub fn accounts(&mut self) -> io::Result<Vec<Result<Account, LeftOut>>> {
        let known = self.index.accounts.clone();
        let mut accounts = Vec::with_capacity(known.len());
        for ((issuer, mail), files) in known {
            let left_out = |why| {
                Err(LeftOut {
                    what: format!("account {mail} of {issuer}"),
                    why,
                })
            };
            let (Some(json), Some(key)) = (files.json, files.key) else {
                accounts.push(left_out("the archive lacks its .json or its .key"));
                continue;
            };
            let json = self.content(json)?;
            let Ok(Registration { location }) = serde_json::from_slice(json.expose()) else {
                accounts.push(left_out("its .json does not tell its URL (location)"));
                continue;
            };
            let key = self.content(key)?;
            let directory = self.directory_of(&issuer)?;
            accounts.push(Ok(Account {
                issuer,
                directory,
                url: location,
                key,
            }));
        }
        Ok(accounts)
    }

    /// The next certificate; nothing after the last.
    ///
    /// # Errors
    /// Those of the file.
    pub fn next_certificate(&mut self) -> io::Result<Option<Result<Certificate, LeftOut>>> {
        let Some(((issuer, name), files)) = self.index.certificates.get(self.next) else {
            return Ok(None);
        };
        let (is_local, name, files) = (issuer == LOCAL, name.clone(), *files);
        self.next += 1;
        match is_local {
            true => Ok(Some(Err(LeftOut {
                what: name,
                why: BY_CADDY,
            }))),
            false => self.certificate(name, files).map(Some),
        }
    }

    fn certificate(
        &mut self,
        name: String,
        files: Files,
    ) -> io::Result<Result<Certificate, LeftOut>> {
        let (Some(chain), Some(key)) = (files.chain, files.key) else {
            let why =
                "the archive lacks its .crt or its .key, or they are larger than any real one";
            return Ok(Err(LeftOut { what: name, why }));
        };
        let data = match files.json {
            Some(json) => self.metadata(json)?,
            None => IssuerData::default(),
        };
        Ok(Ok(Certificate {
            name,
            chain: self.content(chain)?,
            key: self.content(key)?,
            directory: data.ca,
            account: data.account,
        }))
    }

    /// The directory that the certificates of an issuer name: the first that does.
    fn directory_of(&mut self, issuer: &str) -> io::Result<Option<String>> {
        let of_issuer = self.index.certificates.iter();
        let of_issuer = of_issuer.filter(|((of, _), _)| of == issuer);
        let places: Vec<Place> = of_issuer
            .filter_map(|(_, files)| files.json)
            .take(LOOKED_AT)
            .collect();
        for place in places {
            if let Some(directory) = self.metadata(place)?.ca {
                return Ok(Some(directory));
            }
        }
        Ok(None)
    }

    /// What cannot be read tells nothing; the certificate may be good all the same.
    fn metadata(&mut self, place: Place) -> io::Result<IssuerData> {
        let json = self.content(place)?;
        let read = serde_json::from_slice::<Metadata>(json.expose());
        Ok(read.map_or_else(|_unreadable| IssuerData::default(), |read| read.issuer_data))
    }

    /// Sizes were bounded when the headers were read.
    fn content(&mut self, place: Place) -> io::Result<Secret> {
        self.reader.seek(SeekFrom::Start(place.offset))?;
        let mut bytes = Vec::with_capacity(usize::try_from(place.size).unwrap_or_default());
        (&mut self.reader)
            .take(place.size)
            .read_to_end(&mut bytes)?;
        Ok(Secret::new(bytes))
    }
}

/// Certificates that are asked for their issuer's directory.
const LOOKED_AT: usize = 16;

#[cfg(test)]
mod tests;
