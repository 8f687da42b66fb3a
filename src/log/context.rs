//! Who makes a change, and from where: what all entries of a session have in common.

use crate::log::buffer::TextBuffer;
use crate::log::salts::Salts;
use crate::pg::encoding::{cut, outside, to_utf8};
use crate::pg::{catalog, inet, session};
use crate::settings::{self, MAX_ACTOR};
use audit_chain_core::Hash;
use audit_chain_core::format::Who;
use pgrx::pg_sys::Oid;
use std::borrow::Cow;
use std::cell::Cell;

/// The longest part of a statement that is recorded, in bytes.
const MAX_STATEMENT: usize = 1 << 20;

thread_local! {
    /// Increases whenever a role's name may have changed.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
}

/// Makes sessions look up role names again, because they may have changed.
pub fn forget_names() {
    GENERATION.set(GENERATION.get() + 1);
}

/// A role's name, looked up again for another role, or when names have changed.
pub struct RoleName {
    role: Oid,
    generation: u64,
    /// The name.
    pub name: TextBuffer,
}

impl RoleName {
    /// Returns whether the name is another one.
    fn update(&mut self, role: Oid) -> bool {
        // Read before the look-up, which may itself process an invalidation.
        let generation = GENERATION.get();
        if (self.role, self.generation) == (role, generation) {
            return false;
        }
        // A role can be dropped while one of its sessions lasts.
        let name = catalog::role_name(role).unwrap_or_else(|| format!("oid {}", role.to_u32()).into_bytes());
        let is_other = self.name.replace(Some(&outside(&name)));
        (self.role, self.generation) = (role, generation);
        is_other
    }
}

/// The client's address, which never changes during a session.
#[derive(Default)]
struct Address {
    /// The inet value without its header, and the text that is hashed.
    value: Option<(Vec<u8>, Vec<u8>)>,
    known: bool,
}

/// The salt and the digest of a who-part, which all entries of a transaction share as long as it does not
/// change.
#[derive(Clone, Copy)]
pub struct SaltedWho {
    xid: u64,
    /// The salt.
    pub salt: [u8; 16],
    /// The digest.
    pub digest: Hash,
}

/// The session, as entries record it. The who-part of an entry is all of it but the statement.
pub struct SessionContext {
    /// The role that logged in.
    pub session_role: RoleName,
    /// The role that the statement runs as.
    pub effective_role: RoleName,
    /// `audit_chain.actor`.
    pub actor: TextBuffer,
    /// `application_name`.
    pub application_name: TextBuffer,
    /// The client's query, if `audit_chain.log_statement` is on.
    pub statement: TextBuffer,
    address: Address,
    /// Of the transaction that wrote last; `None` after a change.
    who: Option<SaltedWho>,
}

impl Default for SessionContext {
    fn default() -> Self {
        let role = || RoleName { role: Oid::INVALID, generation: 0, name: TextBuffer::default() };
        Self {
            session_role: role(),
            effective_role: role(),
            actor: TextBuffer::default(),
            application_name: TextBuffer::default(),
            statement: TextBuffer::default(),
            address: Address::default(),
            who: None,
        }
    }
}

impl SessionContext {
    /// Updates it, for a statement that runs as `effective_role`.
    pub fn refresh(&mut self, effective_role: Oid) {
        // Put back at the end, so that no digest survives an error between two changes.
        let who = self.who.take();
        let mut is_other = self.session_role.update(session::session_role());
        is_other |= self.effective_role.update(effective_role);
        // Nobody has checked these texts.
        let actor = settings::actor();
        is_other |= self.actor.replace(actor.as_deref().map(|actor| recorded(actor, MAX_ACTOR)).as_deref());
        is_other |= self.application_name.replace(session::application_name().map(outside).as_deref());
        self.statement.set(settings::log_statement().then(statement).flatten().as_deref());
        if !self.address.known {
            self.address.value = client_address();
            self.address.known = true;
        }
        self.who = who.filter(|_| !is_other);
    }

    /// The salt and the digest of the who-part. A transaction never uses a salt of another one, nor one salt
    /// for two who-parts: the salt of one that is still there would help to guess one that was erased.
    pub fn salted_who(&mut self, xid: u64, salts: &mut Salts, buffer: &mut Vec<u8>) -> SaltedWho {
        if let Some(who) = self.who.filter(|who| who.xid == xid) {
            return who;
        }
        let salt = salts.next();
        let texts = [&self.session_role.name, &self.effective_role.name, &self.actor, &self.application_name]
            .map(|text| text.get().map(to_utf8));
        let [session_role, effective_role, actor, application_name] = texts.each_ref().map(Option::as_deref);
        let digest = Who {
            salt,
            session_role: session_role.unwrap_or_default(),
            effective_role: effective_role.unwrap_or_default(),
            actor,
            application_name,
            client_addr: self.client_addr_text(),
        }
        .digest_with(buffer);
        *self.who.insert(SaltedWho { xid, salt, digest })
    }

    /// The client's address as an inet value, without its header.
    pub fn client_addr(&self) -> Option<&[u8]> {
        self.address.value.as_ref().map(|(packed, _)| packed.as_slice())
    }

    /// The client's address as text.
    fn client_addr_text(&self) -> Option<&[u8]> {
        self.address.value.as_ref().map(|(_, text)| text.as_slice())
    }
}

/// A text that nobody has checked, as entries record it. A long one is cut: a write never fails because of
/// it.
fn recorded(text: &[u8], limit: usize) -> Cow<'_, [u8]> {
    match cut(text, limit) {
        Cow::Borrowed(text) => outside(text),
        Cow::Owned(text) => Cow::Owned(outside(&text).into_owned()),
    }
}

/// The client's query, as entries record it; `None` where there is none.
pub fn statement<'a>() -> Option<Cow<'a, [u8]>> {
    session::client_query().map(|query| recorded(query, MAX_STATEMENT))
}

/// The address of the connection's client; `None` for a local socket and for background workers.
fn client_address() -> Option<(Vec<u8>, Vec<u8>)> {
    let packed = inet::client_inet()?;
    let text = inet::inet_text(&packed);
    Some((packed, text))
}
