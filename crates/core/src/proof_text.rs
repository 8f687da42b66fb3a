//! Proofs as text, to be sent and kept: an inclusion proof as C2SP tlog-proof (`c2sp.org/tlog-proof@v1`), a
//! consistency proof as the request that C2SP tlog-witness v1.0.0 defines (`add-checkpoint`), which any
//! witness takes.
//!
//! **Invariant**: a proof has one text. Parsing checks its form only; `check` says whether it proves
//! anything.

use crate::{
    Hash,
    checkpoint::{Checkpoint, CheckpointError},
    merkle::leaf_hash,
    note::{MAX_NOTE, Note, NoteError},
    proof::{MAX_PROOF_HASHES, ProofError, verify_consistency, verify_inclusion},
    text,
};
use std::fmt;

/// The longest proof that is read, in bytes: the longest leaf in base64, the hashes, the note.
pub const MAX_PROOF: usize = 88_000 + MAX_PROOF_HASHES * 45 + MAX_NOTE;

/// The first line of a tlog-proof.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Why a text is not a proof, or proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofTextError {
    /// Longer than [`MAX_PROOF`].
    TooLarge,
    /// Not of the form of a proof; with what was expected.
    Malformed(&'static str),
    /// The note in it is refused.
    Note(NoteError),
    /// The note in it is not a checkpoint.
    Checkpoint(CheckpointError),
    /// The proof is well-formed and wrong.
    Proof(ProofError),
}

impl fmt::Display for ProofTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "the proof is longer than {MAX_PROOF} bytes"),
            Self::Malformed(expected) => write!(f, "malformed proof: expected {expected}"),
            Self::Note(error) => error.fmt(f),
            Self::Checkpoint(error) => error.fmt(f),
            Self::Proof(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ProofTextError {}

impl From<NoteError> for ProofTextError {
    fn from(error: NoteError) -> Self {
        Self::Note(error)
    }
}

impl From<CheckpointError> for ProofTextError {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error)
    }
}

impl From<ProofError> for ProofTextError {
    fn from(error: ProofError) -> Self {
        Self::Proof(error)
    }
}

/// That one entry is in the tree of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct InclusionProof {
    /// The entry's encoded leaf, from which its hash follows. The format calls it extra data; only the proof
    /// itself says that it is in the tree.
    pub leaf: Option<Vec<u8>>,
    /// The entry's number in the tree.
    pub index: u64,
    /// The hashes from the leaf's sibling to the root's child.
    pub hashes: Vec<Hash>,
    /// The checkpoint, as issued.
    pub note: Note,
}

impl InclusionProof {
    /// Reads a tlog-proof.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofTextError> {
        let (head, note) = head_and_note(bytes)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(ProofTextError::Malformed("the first line c2sp.org/tlog-proof@v1"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra"));
        let leaf = match extra.map(|line| line.strip_prefix("extra ").and_then(text::unbase64)) {
            Some(None) => return Err(ProofTextError::Malformed("`extra` and base64")),
            Some(leaf) => leaf,
            None => None,
        };
        let index = lines.next().and_then(|line| text::number(line.strip_prefix("index ")?));
        let index = index.ok_or(ProofTextError::Malformed("`index` and a number"))?;
        Ok(Self { leaf, index, hashes: hash_lines(lines)?, note })
    }

    /// The checkpoint that the note claims.
    pub fn checkpoint(&self) -> Result<Checkpoint, ProofTextError> {
        Ok(Checkpoint::parse(self.note.text())?)
    }

    /// Checks the proof for the leaf it carries against its own checkpoint, and returns that. The note's
    /// signatures are another matter: [`Note::verify`].
    pub fn check(&self) -> Result<Checkpoint, ProofTextError> {
        let leaf =
            self.leaf.as_ref().ok_or(ProofTextError::Malformed("an `extra` line with the entry's leaf"))?;
        self.check_hash(&leaf_hash(leaf))
    }

    /// Checks the proof for an entry's hash against its own checkpoint, and returns that.
    pub fn check_hash(&self, hash: &Hash) -> Result<Checkpoint, ProofTextError> {
        let checkpoint = self.checkpoint()?;
        verify_inclusion(self.index, checkpoint.size, hash, &self.hashes, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for InclusionProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(leaf) = &self.leaf {
            writeln!(f, "extra {}", text::base64(leaf))?;
        }
        writeln!(f, "index {}", self.index)?;
        write_hashes(f, &self.hashes)?;
        write!(f, "\n{}", self.note)
    }
}

/// That the tree of an older checkpoint is a beginning of the tree of a newer one.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsistencyProof {
    /// The older tree's size.
    pub old: u64,
    /// The hashes of RFC 6962, section 2.1.2.
    pub hashes: Vec<Hash>,
    /// The newer checkpoint, as issued.
    pub note: Note,
}

impl ConsistencyProof {
    /// Reads a tlog-witness request.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofTextError> {
        let (head, note) = head_and_note(bytes)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| text::number(line.strip_prefix("old ")?));
        let old = old.ok_or(ProofTextError::Malformed("`old` and a tree size"))?;
        Ok(Self { old, hashes: hash_lines(lines)?, note })
    }

    /// The newer checkpoint that the note claims.
    pub fn checkpoint(&self) -> Result<Checkpoint, ProofTextError> {
        Ok(Checkpoint::parse(self.note.text())?)
    }

    /// Checks that the tree of `old` is a beginning of the newer checkpoint's, and returns the latter.
    pub fn check(&self, old: &Checkpoint) -> Result<Checkpoint, ProofTextError> {
        let new = self.checkpoint()?;
        if old.size != self.old || old.origin != new.origin {
            return Err(ProofTextError::Proof(ProofError::OutOfRange));
        }
        verify_consistency(old.size, new.size, &old.root, &new.root, &self.hashes)?;
        Ok(new)
    }
}

impl fmt::Display for ConsistencyProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        write_hashes(f, &self.hashes)?;
        write!(f, "\n{}", self.note)
    }
}

fn head_and_note(bytes: &[u8]) -> Result<(&str, Note), ProofTextError> {
    if bytes.len() > MAX_PROOF {
        return Err(ProofTextError::TooLarge);
    }
    let text = str::from_utf8(bytes).map_err(|_| ProofTextError::Malformed("UTF-8"))?;
    let (head, note) =
        text.split_once("\n\n").ok_or(ProofTextError::Malformed("an empty line and a checkpoint"))?;
    Ok((head, Note::parse(note.as_bytes())?))
}

fn hash_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>, ProofTextError> {
    let mut hashes = Vec::new();
    for line in lines {
        if hashes.len() == MAX_PROOF_HASHES {
            return Err(ProofTextError::Malformed("at most 63 hashes"));
        }
        hashes.push(text::hash(line).ok_or(ProofTextError::Malformed("a hash in base64"))?);
    }
    Ok(hashes)
}

fn write_hashes(f: &mut fmt::Formatter<'_>, hashes: &[Hash]) -> fmt::Result {
    hashes.iter().try_for_each(|hash| writeln!(f, "{}", text::base64(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::node_hash;

    fn checkpoint(size: u64, root: Hash) -> Note {
        Note::new(&Checkpoint::new("example.com/log", size, root).unwrap().to_string()).unwrap()
    }

    fn inclusion() -> InclusionProof {
        let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
        InclusionProof {
            leaf: Some(b"right".to_vec()),
            index: 1,
            hashes: vec![left],
            note: checkpoint(2, node_hash(&left, &right)),
        }
    }

    fn consistency() -> ConsistencyProof {
        let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
        ConsistencyProof { old: 1, hashes: vec![right], note: checkpoint(2, node_hash(&left, &right)) }
    }

    #[test]
    fn an_inclusion_proof_survives_its_text() {
        for proof in [inclusion(), InclusionProof { leaf: None, hashes: Vec::new(), ..inclusion() }] {
            let text = proof.to_string();
            assert!(text.starts_with("c2sp.org/tlog-proof@v1\n"), "{text}");
            assert_eq!(InclusionProof::parse(text.as_bytes()).unwrap(), proof, "{text}");
        }
        assert_eq!(inclusion().check().unwrap().size, 2);
    }

    #[test]
    fn a_wrong_inclusion_proof_is_not_called_malformed() {
        let wrong = |proof: InclusionProof| proof.check().unwrap_err();
        assert_eq!(wrong(InclusionProof { index: 0, ..inclusion() }), ProofError::Root.into());
        assert_eq!(wrong(InclusionProof { index: 2, ..inclusion() }), ProofError::OutOfRange.into());
        assert_eq!(wrong(InclusionProof { hashes: Vec::new(), ..inclusion() }), ProofError::Length.into());
        assert_eq!(wrong(InclusionProof { leaf: Some(Vec::new()), ..inclusion() }), ProofError::Root.into());
        assert!(matches!(wrong(InclusionProof { leaf: None, ..inclusion() }), ProofTextError::Malformed(_)));
        let text = inclusion().to_string();
        for bad in [
            text.replace("@v1", "@v2"),
            text.replace("index 1", "index 01"),
            text.replace("index 1\n", ""),
            text.replace("extra ", "extra"),
            text.replace("extra ", "extra  "),
            text.replace("\n\n", "\n"),
            text.replace("\nindex", "\n\nindex"),
            text.replace('\n', "\r\n"),
            String::new(),
            text.replacen(
                "index 1\n",
                &format!("index 1\n{}", format!("{}\n", text::base64([0; 32])).repeat(63)),
                1,
            ),
        ] {
            assert!(InclusionProof::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(InclusionProof::parse(&vec![b'x'; MAX_PROOF + 1]), Err(ProofTextError::TooLarge));
        assert!(InclusionProof::parse(b"\xFF\n\n").is_err());
    }

    #[test]
    fn a_consistency_proof_survives_its_text() {
        let proof = consistency();
        assert_eq!(ConsistencyProof::parse(proof.to_string().as_bytes()).unwrap(), proof);
        let old = Checkpoint::new("example.com/log", 1, leaf_hash(b"left")).unwrap();
        assert_eq!(proof.check(&old).unwrap().size, 2);
        for wrong in [
            Checkpoint { root: [0; 32], ..old.clone() },
            Checkpoint { size: 2, ..old.clone() },
            Checkpoint { origin: "another".into(), ..old },
        ] {
            assert!(matches!(proof.check(&wrong), Err(ProofTextError::Proof(_))), "{wrong:?}");
        }
        for bad in ["", "old 1\n", "old\n\na\n1\n", "new 1\n\na\n1\n", "old -1\n\na\n"] {
            assert!(ConsistencyProof::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
