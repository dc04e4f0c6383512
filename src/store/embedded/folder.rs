//! What a data folder must be: ours to write, on a local disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{StatFs, statfs};

use crate::store::embedded::open::OpenError;

/// The database's file in the data folder.
pub(super) const DATABASE: &str = "vestibule.db";
/// Begins every SQLite database (its file format, section 1.3).
const SQLITE_HEADER: &[u8; 16] = b"SQLite format 3\0";
/// File systems in user space; which one, the mount table tells.
const FUSE: u64 = 0x6573_5546;

/// Makes the folder where there is none, checks it, and gives the path of the database in it.
pub(super) fn prepare(folder: &Path) -> Result<PathBuf, OpenError> {
    if !folder.exists() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(|source| {
            // Where rights are missing, it is the folder above whose owner or mode must change.
            let denied = source.kind() == io::ErrorKind::PermissionDenied;
            let at_fault = match denied {
                true => existing_ancestor(folder),
                false => folder,
            };
            unusable(at_fault, source)
        })?;
    }
    check_local(folder)?;
    check_writable(folder)?;
    let database = folder.join(DATABASE);
    check_database(&database)?;
    Ok(database)
}

fn existing_ancestor(folder: &Path) -> &Path {
    let mut ancestors = folder.ancestors().filter(|path| path.is_dir());
    ancestors.next().unwrap_or_else(|| Path::new("/"))
}

/// SQLite's write-ahead log is memory shared by mapping, which no network file system gives.
fn check_local(folder: &Path) -> Result<(), OpenError> {
    match remote_file_system(folder) {
        Ok(None) => Ok(()),
        Ok(Some(kind)) => Err(OpenError::NetworkFileSystem {
            folder: folder.to_owned(),
            kind,
        }),
        Err(error) => Err(unusable(folder, error)),
    }
}

/// The name of the network file system that `folder` lies on; nothing for a local disk.
///
/// # Errors
/// Where the folder is not there or cannot be looked at.
pub fn remote_file_system(folder: &Path) -> io::Result<Option<String>> {
    let mount: StatFs = statfs(folder)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    // The width of the field differs by platform; the magic numbers have 32 bits.
    #[expect(clippy::cast_sign_loss, reason = "a bit pattern")]
    let magic = (mount.f_type as u64) & 0xffff_ffff;
    Ok(network_file_system(magic, mounted_type(&mounts, &path)).map(str::to_owned))
}

/// The name of a file system that is not local, by the magic number that `statfs` tells and, for those in user
/// space, by the type that the mount table tells.
fn network_file_system(magic: u64, mounted: Option<&str>) -> Option<&str> {
    let known = match magic {
        0x6969 => "nfs",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "smb",
        0x0102_1997 => "9p",
        0x00c3_6400 => "ceph",
        0x5346_414f | 0x6b41_4653 => "afs",
        0x7375_7245 => "coda",
        0x0bd0_0bd0 => "lustre",
        0x0116_1970 => "gfs2",
        0x7461_636f => "ocfs2",
        0x4750_4653 => "gpfs",
        FUSE => return mounted.filter(|kind| is_network_fuse(kind)),
        _ => return None,
    };
    Some(known)
}

fn is_network_fuse(kind: &str) -> bool {
    const REMOTE: [&str; 14] = [
        "sshfs",
        "glusterfs",
        "ceph",
        "ceph-fuse",
        "s3fs",
        "rclone",
        "gcsfuse",
        "goofys",
        "juicefs",
        "davfs",
        "mountpoint-s3",
        "seaweedfs",
        "blobfuse",
        "moosefs",
    ];
    kind.strip_prefix("fuse.")
        .is_some_and(|name| REMOTE.contains(&name))
}

/// The type of the file system that holds `path`, by the table in `/proc/self/mountinfo`.
fn mounted_type<'a>(table: &'a str, path: &Path) -> Option<&'a str> {
    let mounts = table.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        path.starts_with(point)
            .then(|| (point.len(), kind.split(' ').next()))
    });
    // Of two mounts on one point, the later one covers the earlier.
    mounts.max_by_key(|(length, _)| *length)?.1
}

/// Tries it, for permission bits do not tell of read-only mounts, lists and capabilities.
fn check_writable(folder: &Path) -> Result<(), OpenError> {
    let probe = folder.join(format!(".{}.probe", uuid::Uuid::new_v4()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    match options.open(&probe) {
        Ok(_) => fs::remove_file(&probe).map_err(|source| unusable(folder, source)),
        // A full disk is no reason not to start: what is stored can be served.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        Err(source) => Err(unusable(folder, source)),
    }
}

/// Makes the file for its owner only where there is none, and refuses one that is no database.
fn check_database(database: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let file = options
        .open(database)
        .map_err(|source| unusable(database, source))?;
    let length = file
        .metadata()
        .map_err(|source| unusable(database, source))?
        .len();
    if length == 0 {
        let folder = database.parent().unwrap_or_else(|| Path::new("."));
        return File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| unusable(folder, source));
    }
    let mut header = [0; 16];
    match std::os::unix::fs::FileExt::read_exact_at(&file, &mut header, 0) {
        Ok(()) if &header == SQLITE_HEADER => Ok(()),
        Ok(()) | Err(_) => Err(OpenError::Foreign(database.to_owned())),
    }
}

/// Why `path` cannot be used, with what repairs it where that is known.
fn unusable(path: &Path, source: io::Error) -> OpenError {
    let denied = source.kind() == io::ErrorKind::PermissionDenied;
    match fs::metadata(path) {
        Ok(metadata) if denied => OpenError::NotOurs {
            path: path.to_owned(),
            owner: metadata.uid(),
            mode: metadata.mode() & 0o777,
            us: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        },
        Ok(_) | Err(_) => OpenError::Unusable {
            path: path.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        let check = |magic, mounted, expected| {
            assert_eq!(
                network_file_system(magic, mounted),
                expected,
                "{magic:#x} {mounted:?}"
            );
        };
        check(0x6969, None, Some("nfs"));
        check(0xff53_4d42, None, Some("smb"));
        check(0xfe53_4d42, Some("cifs"), Some("smb"));
        check(0x0102_1997, None, Some("9p"));
        check(0x00c3_6400, None, Some("ceph"));
        check(FUSE, Some("fuse.sshfs"), Some("fuse.sshfs"));
        check(FUSE, Some("fuse.fuse-overlayfs"), None);
        check(FUSE, Some("fuseblk"), None);
        check(FUSE, None, None);
        // ext4, xfs, btrfs, tmpfs, overlayfs, zfs.
        for local in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x2fc1_2fc1,
        ] {
            check(local, None, None);
        }
    }

    #[test]
    fn the_innermost_mount_tells_the_type() {
        let table = "22 1 0:20 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                     40 22 0:35 / /data rw,nosuid shared:20 master:3 - fuse.sshfs host:/x rw\n\
                     41 22 0:36 / /database rw - xfs /dev/sdb rw\n\
                     damaged line\n";
        let check = |path, expected| assert_eq!(mounted_type(table, Path::new(path)), expected);
        check("/data/vestibule", Some("fuse.sshfs"));
        check("/database", Some("xfs"));
        check("/datafile", Some("ext4"));
        check("/", Some("ext4"));
    }

    #[test]
    fn a_folder_is_made_for_its_owner_only() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("a/b");
        let database = prepare(&folder).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&database)), (0o700, 0o600));
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "no probe is left"
        );
    }

    #[test]
    fn a_file_that_is_no_database_is_left_alone() {
        for content in [&b"short"[..], b"a text that is longer than the header"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(DATABASE);
            let access = crate::base::file::Access::Owner;
            crate::base::file::replace(&path, content, access).unwrap();
            let error = prepare(folder.path()).unwrap_err();
            assert!(matches!(error, OpenError::Foreign(_)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        crate::base::file::replace(&file, b"", crate::base::file::Access::Owner).unwrap();
        let error = prepare(&file.join("data")).unwrap_err();
        assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
    }
}
