//! Password files (`~/.pgpass`), as libpq reads them.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// What a password file gives for a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The password.
    Password(String),
    /// There is no file, or no line that fits.
    Nothing,
    /// The file was not read, because others may read it too, or because it is no file: a warning.
    Refused(String),
}

/// Looks up the password of a connection.
#[must_use]
pub fn look_up(path: &Path, host: &str, port: u16, dbname: &str, user: &str) -> Found {
    let Ok(metadata) = fs::metadata(path) else { return Found::Nothing };
    if !metadata.is_file() {
        return Found::Refused(format!("the password file {} is not a plain file", path.display()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Found::Refused(format!(
            "the password file {} has group or world access and was not used; run: chmod 600 {0}",
            path.display()
        ));
    }
    let Ok(text) = fs::read(path) else {
        return Found::Refused(format!("the password file {} cannot be read", path.display()));
    };
    let text = String::from_utf8_lossy(&text);
    let wanted = [host, &port.to_string(), dbname, user];
    text.lines().find_map(|line| password_of(line, wanted)).map_or(Found::Nothing, Found::Password)
}

/// `host:port:database:user:password`; `*` fits everything, a backslash makes the next character literal.
fn password_of(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let (mut fields, mut field, mut escaped) = (Vec::with_capacity(5), String::new(), false);
    let mut characters = line.trim_end_matches('\r').chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                field.extend(characters.next());
                escaped = true;
            }
            ':' if fields.len() < 4 => {
                fields.push((std::mem::take(&mut field), std::mem::take(&mut escaped)))
            }
            other => field.push(other),
        }
    }
    let fits =
        |((field, escaped), wanted): (&(String, bool), &str)| (field == "*" && !escaped) || field == wanted;
    (fields.len() == 4 && fields.iter().zip(wanted).all(fits)).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgpass");
        let find = |host, user| look_up(&file, host, 5432, "app", user);
        assert_eq!(find("db", "u"), Found::Nothing);
        let lines = "# c:*:*:*:no\n\nshort:5432\ndb:5432:app:u:pa\\:ss:w\\\\ord\ndb:*:*:*:any\n\\*:*:*:u:star\n::1:x\n\
                     \\:\\:1:*:*:*:six\r\n";
        fs::write(&file, lines).unwrap();
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        let password = |password: &str| Found::Password(password.into());
        assert_eq!(find("db", "u"), password("pa:ss:w\\ord"));
        assert_eq!(find("db", "v"), password("any"));
        assert_eq!(find("other", "u"), Found::Nothing);
        assert_eq!(find("*", "u"), password("star"));
        assert_eq!(find("::1", "u"), password("six"));
        mode(0o640);
        assert!(matches!(find("db", "u"), Found::Refused(why) if why.contains("chmod 600")));
        assert!(matches!(look_up(folder.path(), "db", 1, "", ""), Found::Refused(_)));
    }
}
