//! The register of erasures: a signed text that names the places of all erased parts and nothing of what was
//! there. Whoever holds a backup or another copy of the log erases the same there.

use crate::audit::enable::check_reason;
use crate::erasure::call;
use crate::erasure::subject::Subject;
use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::log::incarnation;
use crate::log::stored::AddressText;
use crate::log::{self, erased};
use crate::pg::fmgr::Call;
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::Text;
use crate::pg::xact::{self, ActiveSnapshot};
use crate::tree::reader::Reader;
use crate::tree::signing_key::signing_key;
use crate::tree::store::TreeStore;
use audit_chain_core::check::{LogReader, ReadError};
use audit_chain_core::entry::Scratch;
use audit_chain_core::erasure::Erasure;
use audit_chain_core::identity::LogIdentity;
use audit_chain_core::key::VerifierKey;
use audit_chain_core::register::{ErasedRange, Register, RegisterError, SuppliedRegister};
use pgrx::pg_sys::Datum;
use std::cell::RefCell;

/// `audit_erasure_register() RETURNS text`
pub fn register(call: Call) -> Datum {
    call.returns(Text(make().or_raise()))
}

/// `audit_apply_erasure_register(register text, public_key text, dry_run boolean)`
pub fn apply(call: Call) -> Datum {
    call.returns_rows(apply_supplied(&call).or_raise())
}

fn bad(error: &RegisterError) -> Error {
    Error::BadRegister { reason: error.to_string() }
}

fn identity(extension: &Extension) -> Result<Option<LogIdentity>, Error> {
    let store = TreeStore::open(extension)?;
    Reader::new(&store).identity().map_err(|error| match error {
        ReadError::Damaged(reason) => Error::DamagedTree { reason },
        ReadError::Failed(error) => error,
    })
}

fn make() -> Result<String, Error> {
    let extension = Extension::installed()?;
    let key = signing_key()?;
    let _path = LocalSettings::safe_search_path();
    let _owner = extension.act_as_owner();
    log::flush();
    xact::make_visible();
    let _now = ActiveSnapshot::push_latest();
    let identity = identity(&extension)?.ok_or(Error::NothingToSeal)?;
    let (ranges, scratch) = (RefCell::new(Vec::new()), RefCell::new(Scratch::default()));
    erased::for_each_entry(&extension, |row| {
        row.with_entry(&mut AddressText::default(), |entry| {
            // What an entry says that was altered is not signed.
            if entry.check(&mut scratch.borrow_mut()).is_err() {
                return;
            }
            let Some(erasure) = entry.operation.and_then(|word| Erasure::of_entry(word, entry.detail)) else {
                return;
            };
            let Erasure { part, request, places, .. } = erasure;
            let all = places.into_iter().map(|places| ErasedRange { part, places, request });
            ranges.borrow_mut().extend(all);
        });
    })?;
    let origin = audit_chain_core::checkpoint::default_origin(&identity.newest());
    let register = Register::new(&origin, ranges.into_inner()).map_err(|error| bad(&error))?;
    Ok(register.to_note(key.as_ref()).map_err(|error| bad(&error))?.to_string())
}

fn apply_supplied(call: &Call) -> Result<Vec<Vec<Option<Datum>>>, Error> {
    const FUNCTION: &str = "audit_apply_erasure_register";
    let null = |argument| Error::NullArgument { function: FUNCTION, argument };
    let text = call.text(0).ok_or_else(|| null("register"))?;
    let key = call.text(1).ok_or_else(|| null("public_key"))?;
    xact::refuse_if_read_only(c"audit_apply_erasure_register()");
    let supplied = SuppliedRegister::parse(text.as_bytes()).map_err(|error| bad(&error))?;
    let keys = VerifierKey::parse_list(&key).map_err(|error| Error::BadKey { reason: error.to_string() })?;
    let signers = supplied.verify(&keys).map_err(|error| bad(&error))?;
    let extension = Extension::installed()?;
    let role = session::effective_role();
    let _path = LocalSettings::safe_search_path();
    let _owner = extension.act_as_owner();
    log::flush();
    xact::make_visible();
    let _now = ActiveSnapshot::push_latest();
    supplied.is_of(identity(&extension)?.as_ref()).map_err(|error| bad(&error))?;
    let register = supplied.register();
    let signer = signers.first().map(|signer| signer.name.as_str()).unwrap_or_default();
    let reason = format!("erasure register of {}, signed by {signer}", register.origin());
    check_reason(&reason, FUNCTION)?;
    // A copy parts from its original now, at the latest.
    let _silent = log::WithoutStatement::begin();
    log::begin(role)?;
    log::flush();
    xact::make_visible();
    let subject =
        Subject::Register { text: register.to_string(), before: incarnation::parted_at(&extension)? };
    call::perform(&extension, &subject, &reason, role)
}
