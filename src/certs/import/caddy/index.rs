//! Where the files of an archive lie, from its headers alone.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Seek};

use tar::{Archive, Entry, EntryType};

/// Headers in an archive: a million certificates have three files each.
const MOST_ENTRIES: usize = 4_000_000;
/// Certificates and accounts that are taken.
const MOST_CERTIFICATES: usize = 1_000_000;
/// The largest chain.
const MOST_CHAIN: u64 = 64 * 1024;
/// The largest key, and the largest metadata.
const MOST_SMALL: u64 = 32 * 1024;
/// How PEM begins.
const PEM: &[u8] = b"-----BEGIN";
/// The longest path, and the largest header that extends another.
const LONGEST_PATH: u64 = 4096;

/// Why a file is not read as an export.
#[derive(Debug)]
pub enum ExportError {
    /// It is no tar archive, or a damaged one. Why is not kept: the words quote the file, which may be a key.
    NoArchive,
    /// It begins like PEM: a certificate or a key.
    Pem,
    /// It could not be read, in which way the system says.
    Unreadable(io::Error),
    /// It holds neither certificates nor accounts in Caddy's layout.
    NoCertificates,
    /// It has more entries than this.
    TooManyEntries(usize),
    /// It has more certificates than this.
    TooManyCertificates(usize),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArchive => f.write_str(
                "it is not a tar archive as `caddy storage export` writes it, or is damaged",
            ),
            Self::Pem => f.write_str(
                "it is not a tar archive as `caddy storage export` writes it but PEM: for a certificate and its key \
                 there is `vestibule certificate import --chain FILE --key FILE`",
            ),
            Self::Unreadable(_) => f.write_str("reading it failed"),
            Self::NoCertificates => f.write_str(
                "it holds no certificate of Caddy: expected certificates/ISSUER/NAME/NAME.crt, as `caddy storage \
                 export` writes them",
            ),
            Self::TooManyEntries(most) => write!(f, "it has more than {most} entries"),
            Self::TooManyCertificates(most) => write!(f, "it has more than {most} certificates"),
        }
    }
}

impl std::error::Error for ExportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(error) => Some(error),
            Self::NoArchive
            | Self::Pem
            | Self::NoCertificates
            | Self::TooManyEntries(_)
            | Self::TooManyCertificates(_) => None,
        }
    }
}

impl From<io::Error> for ExportError {
    /// What the system says has a number; every other text is the archive reader's, and quotes what it read.
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(_) => Self::Unreadable(error),
            None => Self::NoArchive,
        }
    }
}

/// Whether a file begins like PEM. Leaves the reader at its beginning.
fn is_pem<R: Read + Seek>(reader: &mut R) -> io::Result<bool> {
    let mut start = Vec::with_capacity(PEM.len());
    reader
        .by_ref()
        .take(PEM.len() as u64)
        .read_to_end(&mut start)?;
    reader.rewind()?;
    Ok(start == PEM)
}

/// Where a file's content lies in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// The files of one certificate or account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) chain: Option<Place>,
    pub(super) key: Option<Place>,
    pub(super) json: Option<Place>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chain,
    Key,
    Json,
}

impl Files {
    /// The first file of a kind counts, where an archive has several under one path.
    fn put(&mut self, kind: Kind, place: Place) {
        let slot = match kind {
            Kind::Chain => &mut self.chain,
            Kind::Key => &mut self.key,
            Kind::Json => &mut self.json,
        };
        slot.get_or_insert(place);
    }
}

/// Files by issuer and name.
type Groups = BTreeMap<(String, String), Files>;

/// Where everything lies, in the order of issuers and names.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) certificates: Vec<((String, String), Files)>,
    pub(super) accounts: Vec<((String, String), Files)>,
}

/// What was found so far.
#[derive(Default)]
struct Found {
    certificates: Groups,
    accounts: Groups,
}

impl Index {
    /// Reads every header; gives the reader back.
    pub(super) fn read<R: Read + Seek>(mut reader: R) -> Result<(Self, R), ExportError> {
        if is_pem(&mut reader)? {
            return Err(ExportError::Pem);
        }
        let mut archive = Archive::new(reader);
        let mut found = Found::default();
        // Raw: an extended header is read by us, for its length is whatever it says.
        let entries = archive.entries_with_seek()?;
        let mut long_path = None;
        for (count, entry) in entries.raw(true).enumerate() {
            let mut entry = entry?;
            if count >= MOST_ENTRIES {
                return Err(ExportError::TooManyEntries(MOST_ENTRIES));
            }
            let kind = entry.header().entry_type();
            if matches!(kind, EntryType::XHeader | EntryType::GNULongName) {
                long_path = extended(&mut entry)?;
            } else {
                let path = long_path.take();
                if kind == EntryType::Regular {
                    found.take(path, &entry);
                }
            }
            if found.certificates.len().max(found.accounts.len()) > MOST_CERTIFICATES {
                return Err(ExportError::TooManyCertificates(MOST_CERTIFICATES));
            }
        }
        let index = Self {
            certificates: found.certificates.into_iter().collect(),
            accounts: found.accounts.into_iter().collect(),
        };
        match index.certificates.is_empty() && index.accounts.is_empty() {
            true => Err(ExportError::NoCertificates),
            false => Ok((index, archive.into_inner())),
        }
    }
}

impl Found {
    fn take<R: Read>(&mut self, long_path: Option<String>, entry: &Entry<'_, R>) {
        let path = long_path.or_else(|| {
            let bytes = entry.header().path_bytes();
            String::from_utf8(bytes.into_owned()).ok()
        });
        let Some(path) = path else { return };
        let segments: Vec<&str> = path
            .split('/')
            .filter(|s| !matches!(*s, "" | "."))
            .collect();
        let (groups, issuer, name, kind) = match segments[..] {
            ["certificates", issuer, name, file] => {
                let kind = file.strip_prefix(name).and_then(kind_of);
                (&mut self.certificates, issuer, name, kind)
            }
            ["acme", issuer, "users", mail, file] => {
                let ending = file.rfind('.').and_then(|at| file.get(at..));
                (&mut self.accounts, issuer, mail, ending.and_then(kind_of))
            }
            _ => return,
        };
        let (Some(kind), size) = (kind, entry.size()) else {
            return;
        };
        let most = match kind {
            Kind::Chain => MOST_CHAIN,
            Kind::Key | Kind::Json => MOST_SMALL,
        };
        let files = groups
            .entry((issuer.to_owned(), name.to_owned()))
            .or_default();
        if size <= most {
            let offset = entry.raw_file_position();
            files.put(kind, Place { offset, size });
        }
    }
}

fn kind_of(ending: &str) -> Option<Kind> {
    match ending {
        ".crt" => Some(Kind::Chain),
        ".key" => Some(Kind::Key),
        ".json" => Some(Kind::Json),
        _ => None,
    }
}

/// The path that an extended header gives to the entry after it.
fn extended<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Option<String>> {
    if entry.size() > LONGEST_PATH {
        return Ok(None);
    }
    if entry.header().entry_type() == EntryType::GNULongName {
        let mut path = String::new();
        // Not text is no path of Caddy's.
        return Ok(match entry.read_to_string(&mut path) {
            Ok(_) => Some(path.trim_end_matches('\0').to_owned()),
            Err(_) => None,
        });
    }
    let mut path = None;
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        match extension.key() {
            Ok("path") => path = extension.value().ok().map(str::to_owned),
            // A size that differs from the header's makes readers disagree about what follows.
            Ok("size") => return Ok(None),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(path)
}
