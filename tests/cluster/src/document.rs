//! Runs the commands of a document as a reader copies them: every block, in order, on a throwaway server.
//!
//! What a block is, its text says: SQL, a shell script, lines of `postgresql.conf`, a line of a crontab, or
//! the table that the SQL before it prints. A block that is none of these fails the test. Stand-ins on the
//! PATH do locally what other machines and other users would do, and absolute paths lead into the server's
//! own directory.

use crate::{Database, eventually};
use harness::{Mode, Server};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The database of the documents.
pub const DATABASE: &str = "app";

/// A piece of a document that is not prose.
#[derive(Clone, Debug)]
pub struct Block {
    /// The file and the number of its first line.
    pub place: String,
    pub text: String,
    /// Comments before it that tell this test what a reader does not need to be told.
    pub directives: Vec<Directive>,
}

/// `<!-- test: … -->`, which no reader of the document sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// `prepare SQL`: runs this in the block's database before the block.
    Prepare(String),
    /// `in NAME`: the SQL is for this database, which is made if there is none.
    In(String),
    /// `in copies`: each line of the SQL is for a copy of its own of the database.
    InCopies,
    /// `on the collector`: the SQL is for the database of that name on another server.
    OnTheCollector,
}

impl Directive {
    fn parse(place: &str, line: &str) -> Option<Self> {
        let words = line.strip_prefix("<!-- test: ")?.strip_suffix(" -->");
        let words = words.unwrap_or_else(|| panic!("{place}: not the end of a directive: {line}"));
        Some(match words.split_once(' ') {
            Some(("prepare", sql)) => Self::Prepare(sql.to_owned()),
            Some(("in", "copies")) => Self::InCopies,
            Some(("in", name)) => Self::In(name.to_owned()),
            Some(("on", "the collector")) => Self::OnTheCollector,
            _ => panic!("{place}: no directive: {line}"),
        })
    }
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sql,
    Shell,
    Conf,
    Cron,
    /// What the SQL before it prints.
    Output,
}

/// The blocks of a document: what is fenced, and what is indented by four columns after an empty line. An
/// empty line within an indented block begins another one.
pub fn blocks(file: &str, document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut fence: Option<String> = None;
    let (mut inside, mut after_empty) = (false, true);
    let mut directives = Vec::new();
    for (number, line) in (1..).zip(document.lines()) {
        let begin = |blocks: &mut Vec<Block>, directives: &mut Vec<Directive>| {
            let place = format!("{file}:{number}");
            blocks.push(Block { place, text: String::new(), directives: std::mem::take(directives) });
        };
        let add = |blocks: &mut Vec<Block>, line: &str| {
            if let Some(block) = blocks.last_mut() {
                block.text += &format!("{line}\n");
            }
        };
        let trimmed = line.trim_start();
        if let Some(end) = &fence {
            if trimmed.starts_with(end.as_str()) {
                fence = None;
            } else {
                add(&mut blocks, line);
            }
        } else if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fence = Some(trimmed[..3].to_owned());
            begin(&mut blocks, &mut directives);
        } else if line.starts_with("    ") && (inside || after_empty) {
            if !inside {
                begin(&mut blocks, &mut directives);
            }
            inside = true;
            add(&mut blocks, line);
            continue;
        }
        directives.extend(Directive::parse(&format!("{file}:{number}"), line));
        inside = false;
        after_empty = line.is_empty();
    }
    for block in &mut blocks {
        let indentation = |line: &str| line.len() - line.trim_start().len();
        let common =
            block.text.lines().filter(|line| !line.trim().is_empty()).map(indentation).min().unwrap_or(0);
        block.text =
            block.text.lines().map(|line| format!("{}\n", line.get(common..).unwrap_or(""))).collect();
    }
    blocks
}

/// Words with which SQL begins.
const SQL: &[&str] = &[
    "ALTER", "ANALYZE", "BEGIN", "CALL", "COMMENT", "COMMIT", "COPY", "CREATE", "DELETE", "DO", "DROP",
    "EXPLAIN", "GRANT", "IMPORT", "INSERT", "LOAD", "MERGE", "REFRESH", "REINDEX", "RESET", "REVOKE",
    "ROLLBACK", "SELECT", "SET", "SHOW", "TRUNCATE", "UPDATE", "VACUUM", "VALUES", "WITH", "--",
];

impl Block {
    /// What the block is, or `None` if it is nothing that a reader can run.
    pub fn kind(&self) -> Option<Kind> {
        let lines: Vec<&str> = self.text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let first = lines.first()?.split_whitespace().next()?.trim_end_matches(';');
        if lines.iter().any(|line| line.contains("--") && line.trim().chars().all(|c| "-+".contains(c))) {
            return Some(Kind::Output);
        }
        if lines.iter().all(|line| line.starts_with('#') || setting(line).is_some())
            && lines.iter().any(|l| !l.starts_with('#'))
        {
            return Some(Kind::Conf);
        }
        if first.chars().all(|c| c.is_ascii_digit() || "*/,-".contains(c)) {
            return Some(Kind::Cron);
        }
        if SQL.contains(&first) || first.starts_with('\\') {
            return Some(Kind::Sql);
        }
        let is_command = |c: char| c.is_ascii_lowercase() || "-_=$(".contains(c);
        (first.chars().all(is_command) || first.contains('=') || first == "#").then_some(Kind::Shell)
    }
}

/// The name and the value of a line of `postgresql.conf`, without its comment.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once('=')?;
    let name = name.strip_suffix(' ')?;
    let valid = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c));
    let rest = rest.trim();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => &rest[..quoted.rfind('\'')? + 2],
        None => rest.split_whitespace().next()?,
    };
    valid.then_some((name, value))
}

/// Programs that a reader has, and a test has not.
const STAND_INS: &[(&str, &str)] = &[
    // The commands run as the server's user, who can become nobody else and needs not.
    (
        "sudo",
        r#"while [ "$1" = -u ]; do shift 2; done
program=$1; shift
if [ "$program" = install ]; then
    for word; do
        shift
        if [ "$skip" ]; then skip=
        elif [ "$word" = -o ] || [ "$word" = -g ]; then skip=1
        else set -- "$@" "$word"; last=$word; fi
    done
    mkdir -p "$(dirname "$last")"
fi
exec "$program" "$@""#,
    ),
    (
        "scp",
        r#"while [ "${1#-}" != "$1" ]; do shift; done
place() { case "$1" in *:*) mkdir -p "$elsewhere/${1%%:*}"; echo "$elsewhere/${1%%:*}/${1#*:}";; *) echo "$1";; esac; }
exec cp "$(place "$1")" "$(place "$2")""#,
    ),
    (
        "ssh",
        r#"while [ "${1#-}" != "$1" ]; do shift; done
mkdir -p "$elsewhere/$1" && cd "$elsewhere/$1" && shift && exec sh -c "$*""#,
    ),
    (
        "aws",
        r#"[ "$1 $2" = "s3api put-object" ] || exit 2
shift 2
while [ $# -gt 0 ]; do
    case "$1" in
        --bucket) bucket=$2;; --key) key=$2;; --body) body=$2;; --object-lock-*) ;; *) exit 2;;
    esac
    shift 2
done
mkdir -p "$(dirname "$elsewhere/$bucket/$key")"
[ ! -e "$elsewhere/$bucket/$key" ] && exec cp "$body" "$elsewhere/$bucket/$key""#,
    ),
    // The programs are built; that the package exists is what can be wrong.
    ("cargo", r#"[ "$1 $2 $3" = "build --release -p" ] && echo "$packages" | grep -qx "name = \"$4\"""#),
];

/// Whoever reads a document, at the server that it is about.
pub struct Reader {
    // Stopped first, because it may be connected to the other.
    collector: Option<Server>,
    pub server: Server,
    /// Texts of the document that stand for something else here.
    replaced: Vec<(String, String)>,
    printed: String,
}

impl Reader {
    /// Makes a server with the database `app`, where the extension is in the schema `audit` and a table is
    /// audited.
    pub fn new() -> Self {
        // Relative to the data directory, in which the server runs commands.
        let path = format!("../stand-ins:../bin:{}", std::env::var("PATH").unwrap_or_default());
        let server = Server::builder().env("PATH", path).config("wal_level", "logical").start().unwrap();
        for folder in ["stand-ins", "bin", "work", "elsewhere", "root"] {
            let path = server.directory().join(folder);
            fs::create_dir(&path).unwrap();
            server.give(&path).unwrap();
        }
        let reader = Self { collector: None, server, replaced: Vec::new(), printed: String::new() };
        let packages: String = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates"))
            .unwrap()
            .map(|folder| fs::read_to_string(folder.unwrap().path().join("Cargo.toml")).unwrap())
            .flat_map(|text| {
                text.lines().find(|line| line.starts_with("name = ")).map(|line| format!("{line}\n"))
            })
            .collect();
        for (name, script) in STAND_INS {
            let head = "#!/bin/sh\nset -e\nelsewhere=$(cd \"$(dirname \"$0\")/../elsewhere\" && pwd)\n";
            let text = format!("{head}packages='{packages}'\n{script}\n");
            program(&reader.server.directory().join("stand-ins").join(name), text.as_bytes());
        }
        let built =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "audit-chain"]).status();
        assert!(built.unwrap().success());
        let test = std::env::current_exe().unwrap();
        let audit_chain = test.parent().and_then(Path::parent).unwrap().join("audit-chain");
        program(&reader.server.directory().join("bin/audit-chain"), &fs::read(audit_chain).unwrap());
        let database = Database::empty(&reader.server, DATABASE);
        database.sql(
            "CREATE SCHEMA audit; CREATE EXTENSION audit_chain SCHEMA audit;
             ALTER DATABASE app SET search_path = audit, public;",
        );
        database.sql(
            "CREATE TABLE public.accounts (id integer PRIMARY KEY, balance integer);
             SELECT audit_enable('public.accounts'); INSERT INTO public.accounts SELECT g, 100 FROM generate_series(1, 300) g;
             CREATE ROLE auditor LOGIN; GRANT USAGE ON SCHEMA audit TO auditor;
             GRANT SELECT ON audit_log, audit_log_identity, audit_checkpoint_log, audit_checkpoint_span, audit_tile, audit_segment, audit_pruned_leaf, audit_erasure TO auditor",
        );
        reader
    }

    /// Lets a text of the document stand for another one.
    pub fn replace(&mut self, text: &str, by: &str) {
        self.replaced.push((text.to_owned(), by.to_owned()));
    }

    /// Another server, with an empty database of the same name.
    pub fn collector(&mut self) -> &Server {
        self.collector.get_or_insert_with(|| {
            let server = Server::builder().start().unwrap();
            server.psql("postgres", &format!("CREATE DATABASE {DATABASE}")).unwrap();
            server
        })
    }

    /// The directory in which the commands run.
    pub fn work(&self) -> PathBuf {
        self.server.directory().join("work")
    }

    /// The directory of other machines.
    pub fn elsewhere(&self) -> PathBuf {
        self.server.directory().join("elsewhere")
    }

    /// The database. The result holds the server.
    pub fn database(&self) -> Database<'_> {
        Database::of(&self.server, DATABASE)
    }

    /// Runs a block. Panics if that fails, or if it is not known how to run it.
    pub fn run(&mut self, block: &Block) {
        let place = &block.place;
        assert!(
            !block.text.contains('…') && !block.text.contains("..."),
            "{place}: this cannot be run as it is written:\n{}",
            block.text
        );
        let kind = block
            .kind()
            .unwrap_or_else(|| panic!("{place}: it is not known how to run this:\n{}", block.text));
        let text = self.located(&block.text);
        assert!(
            kind == Kind::Sql || block.directives.is_empty(),
            "{place}: {:?} is for SQL",
            block.directives
        );
        match kind {
            Kind::Sql => self.sql(place, &text, &block.directives),
            Kind::Shell => self.shell(place, &text),
            Kind::Cron => self.cron(place, &text),
            Kind::Conf => self.conf(place, &text),
            Kind::Output => self.compare(place, &text),
        }
    }

    /// The text with its paths in the server's own directory.
    fn located(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.replaced {
            text = text.replace(from, to);
        }
        let root = self.server.directory().join("root");
        for folder in ["etc", "var", "srv", "backup", "mnt"] {
            for before in [" ", "'", "\"", "="] {
                text = text.replace(
                    &format!("{before}/{folder}/"),
                    &format!("{before}{}/{folder}/", root.display()),
                );
            }
        }
        text
    }

    fn output(&self, mut command: Command, place: &str, text: &str) -> String {
        let path = ["stand-ins", "bin"]
            .map(|folder| self.server.directory().join(folder).display().to_string())
            .join(":");
        let bindir = self.server.installation().bindir().display();
        command.env("PATH", format!("{path}:{bindir}:{}", std::env::var("PATH").unwrap_or_default()));
        command.env("HOME", self.work()).current_dir(self.work()).stdin(Stdio::null());
        let output = command.output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{place}: {}\n{text}\n{shown}", output.status);
        shown.into_owned()
    }

    /// Runs a script as the server's user does.
    pub fn shell(&mut self, place: &str, script: &str) {
        let mut command = self.server.command("/bin/sh");
        command.args(["-e", "-c", script]).env("PGDATABASE", DATABASE);
        self.printed = self.output(command, place, script);
    }

    /// Runs SQL by psql where the directives say.
    fn sql(&mut self, place: &str, sql: &str, directives: &[Directive]) {
        if directives.contains(&Directive::InCopies) {
            for (number, line) in sql.lines().filter(|line| !line.trim().is_empty()).enumerate() {
                let copy = format!("copy_{number}");
                // A worker of the launcher may be in the database, for a moment.
                eventually(place, || {
                    let create = format!("CREATE DATABASE {copy} TEMPLATE {DATABASE}");
                    self.server.psql("postgres", &create).is_ok()
                });
                self.psql(place, self.server.command("psql"), &copy, line);
            }
        } else if directives.contains(&Directive::OnTheCollector) {
            let psql = self.collector().command("psql");
            self.psql(place, psql, DATABASE, sql);
        } else {
            let database = directives.iter().find_map(|directive| match directive {
                Directive::In(name) => Some(name.clone()),
                _ => None,
            });
            let database = database.unwrap_or_else(|| DATABASE.to_owned());
            let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'");
            if self.server.psql("postgres", &there).unwrap() == "0" {
                self.server
                    .psql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"))
                    .unwrap();
            }
            for directive in directives {
                if let Directive::Prepare(sql) = directive {
                    self.server.psql(&database, sql).unwrap();
                }
            }
            self.psql(place, self.server.command("psql"), &database, sql);
        }
    }

    fn psql(&mut self, place: &str, mut psql: Command, database: &str, sql: &str) {
        let file = self.work().join("block.sql");
        fs::write(&file, sql).unwrap();
        self.server.give(&file).unwrap();
        // Settings of a database do not go to its copies.
        psql.env("PGOPTIONS", "-c search_path=audit,public");
        psql.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "block.sql"]);
        self.printed = self.output(psql, place, sql);
        fs::remove_file(file).unwrap();
    }

    /// Runs what a crontab would run. There, a percent sign is the end of a line.
    fn cron(&mut self, place: &str, table: &str) {
        for line in table.lines().filter(|line| !line.trim().is_empty()) {
            let fields: Vec<&str> = line.splitn(6, ' ').collect();
            let &[.., command] = &fields[..] else { panic!("{place}: not a line of a crontab: {line}") };
            assert_eq!(fields.len(), 6, "{place}: {line}");
            assert!(!command.replace("\\%", "").contains('%'), "{place}: an unescaped %: {line}");
            self.shell(place, &command.replace("\\%", "%"));
        }
    }

    /// Adds the lines to postgresql.conf and restarts the server.
    fn conf(&mut self, place: &str, lines: &str) {
        let settings: Vec<_> = lines.lines().filter_map(setting).collect();
        for (name, value) in &settings {
            let value = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).unwrap_or(value);
            self.server.set_config(name, &value.replace("''", "'")).unwrap();
        }
        self.server.stop(Mode::Fast).unwrap();
        self.server.start().unwrap();
        for (name, _) in &settings {
            let of_file = format!(
                "SELECT count(*) FROM pg_settings WHERE name = '{name}' AND source = 'configuration file'"
            );
            let known = self.database().sql(&format!("LOAD 'audit_chain'; {of_file}"));
            assert_eq!(known, "1", "{place}: {name} is not a setting, or has not been taken");
        }
        let errors = self.database().sql("SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL");
        assert_eq!(errors, "", "{place}");
        if settings.iter().any(|(name, _)| *name == "audit_chain.publish_command") {
            self.publish(place);
        }
    }

    /// Lets the server publish a checkpoint at once instead of at its interval.
    fn publish(&self, place: &str) {
        let database = self.database();
        let interval = database.sql("SHOW audit_chain.checkpoint_interval");
        let set = |interval: &str| {
            self.server.set_config("audit_chain.checkpoint_interval", interval).unwrap();
            database.sql("SELECT pg_reload_conf()");
        };
        let before = files_below(&self.elsewhere());
        set("1s");
        database.sql("SELECT audit_event('published', '{}')");
        eventually(&format!("{place}: a published checkpoint"), || {
            database.sql("SELECT published_entries = entries AND publish_failures = 0 FROM audit_status")
                == "t"
        });
        set(&interval);
        assert!(files_below(&self.elsewhere()) > before, "{place}: nothing has arrived");
    }

    /// Compares with what the last commands printed.
    fn compare(&self, place: &str, expected: &str) {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_rule = |line: &str| line.trim().chars().all(|c| "-+".contains(c));
        let mut printed = self.printed.lines().map(words);
        for line in expected.lines().filter(|line| !is_rule(line)).map(words) {
            assert!(
                printed.any(|found| found == line),
                "{place}: {line:?} is not printed, or not there:\n{}",
                self.printed
            );
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

fn program(path: &Path, text: &[u8]) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn files_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}
