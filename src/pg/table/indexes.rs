//! The open indexes of a table that is written to.

use super::PairKey;
use crate::pg::catalog::C_LANGUAGE;
use crate::pg::compat::{self, Touched};
use crate::pg::session::AsRole;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// A table's open indexes.
pub(super) enum Indexes {
    /// The primary key is the only one.
    Key(KeyIndex),
    /// Any.
    All(ExecutorIndexes),
}

impl Indexes {
    /// # Safety
    /// `relation` is open and locked for writing.
    pub(super) unsafe fn open(relation: pg_sys::Relation, key: Option<PairKey>) -> Self {
        // SAFETY: by the contract.
        unsafe {
            key.and_then(|key| KeyIndex::open(relation, key))
                .map_or_else(|| Self::All(ExecutorIndexes::open(relation)), Self::Key)
        }
    }

    /// # Safety
    /// Opened by `open`, in the same (sub)transaction.
    pub(super) unsafe fn close(self) {
        // SAFETY: by the contract.
        unsafe {
            match self {
                Self::Key(key) => pg_sys::index_close(key.index, pg_sys::NoLock as c_int),
                Self::All(all) => all.close(),
            }
        }
    }
}

/// A primary key.
pub(super) struct KeyIndex {
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
}

impl KeyIndex {
    /// Opens it where the relation has no other index; `None` otherwise.
    ///
    /// # Safety
    /// As [`Indexes::open`].
    pub(super) unsafe fn open(relation: pg_sys::Relation, key: PairKey) -> Option<Self> {
        // SAFETY: by the contract; closed by `Indexes::close` or by the transaction's abort.
        unsafe {
            let list = pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::RelationGetIndexList(relation));
            let only = list.get_oid(0).filter(|_| list.len() == 1)?;
            let index = pg_sys::index_open(only, pg_sys::RowExclusiveLock as c_int);
            let form = &*(*index).rd_index;
            if form.indisprimary && form.indkey.values.as_slice(form.indnatts as usize) == key {
                return Some(Self { index, info: pg_sys::BuildIndexInfo(index) });
            }
            pg_sys::index_close(index, pg_sys::NoLock as c_int);
            None
        }
    }

    /// Adds the row of that key and place.
    ///
    /// # Safety
    /// The row has been written there to `relation`, whose index this is.
    pub(super) unsafe fn insert(
        &self,
        relation: pg_sys::Relation,
        mut key: [Datum; 2],
        place: &mut pg_sys::ItemPointerData,
    ) {
        let mut nulls = [false; 2];
        // SAFETY: by the contract.
        unsafe {
            pg_sys::index_insert(
                self.index,
                key.as_mut_ptr(),
                nulls.as_mut_ptr(),
                place,
                relation,
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES,
                false,
                self.info,
            );
        }
    }
}

/// Whether a function is in C.
fn is_in_c(function: Oid) -> bool {
    // SAFETY: the function's catalog row is valid until released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as c_int, function.into());
        if tuple.is_null() {
            return false;
        }
        let language = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).prolang;
        pg_sys::ReleaseSysCache(tuple);
        language == C_LANGUAGE
    }
}

/// Whether an expression calls a function in C with columns as arguments.
///
/// # Safety
/// A node.
unsafe fn is_c_call(node: *mut pg_sys::Node) -> bool {
    // SAFETY: by the contract; a FuncExpr is recognised by its tag, and so are its arguments.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_FuncExpr {
            return false;
        }
        let call = &*node.cast::<pg_sys::FuncExpr>();
        let arguments = pgrx::PgList::<pg_sys::Node>::from_pg(call.args);
        arguments.iter_ptr().all(|argument| (*argument).type_ == pg_sys::NodeTag::T_Var)
            && is_in_c(call.funcid)
    }
}

/// Whether an expression is `… IS NULL` or `… IS NOT NULL` of such a call.
///
/// # Safety
/// A node.
unsafe fn is_test_of_c_call(node: *mut pg_sys::Node) -> bool {
    // SAFETY: by the contract; a NullTest is recognised by its tag.
    unsafe {
        (*node).type_ == pg_sys::NodeTag::T_NullTest
            && is_c_call((*node.cast::<pg_sys::NullTest>()).arg.cast())
    }
}

/// All indexes, as the executor maintains them.
pub(super) struct ExecutorIndexes {
    result: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
}

impl ExecutorIndexes {
    /// # Safety
    /// As [`Indexes::open`].
    pub(super) unsafe fn open(relation: pg_sys::Relation) -> Self {
        // SAFETY: by the contract; closed by `close` or by the transaction's abort.
        unsafe {
            let estate = pg_sys::CreateExecutorState();
            let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let result: *mut pg_sys::ResultRelInfo =
                pg_sys::palloc0(std::mem::size_of::<pg_sys::ResultRelInfo>()).cast();
            pg_sys::InitResultRelInfo(result, relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(result, false);
            Self::prepare(relation, result, estate);
            pg_sys::MemoryContextSwitchTo(previous);
            Self { result, estate }
        }
    }

    /// Prepares expressions and conditions, as the first insertion would. PostgreSQL checks then, and only
    /// then, who may call their functions: here it is the table's owner. Whoever writes to an audited table
    /// need not be allowed to call what indexes of the log call.
    ///
    /// Only those that call functions in C for columns: to prepare them runs nothing. A function in SQL may
    /// be inlined, and what it calls by way of the session's search path be called, which must not happen as
    /// the owner.
    ///
    /// # Safety
    /// Opened for that relation, in the memory of `estate`.
    pub(super) unsafe fn prepare(
        relation: pg_sys::Relation,
        result: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
    ) {
        // SAFETY: by the contract; the array has one element for each index, whose lists are of nodes.
        unsafe {
            for at in 0..(*result).ri_NumIndices as usize {
                let info = &mut **(*result).ri_IndexRelationInfo.add(at);
                let all = |list, is: fn(*mut pg_sys::Node) -> bool| {
                    let list = pgrx::PgList::<pg_sys::Node>::from_pg(list);
                    !list.is_empty() && list.iter_ptr().all(is)
                };
                let _owner = AsRole::become_role((*(*relation).rd_rel).relowner);
                if all(info.ii_Expressions, |node| is_c_call(node)) {
                    info.ii_ExpressionsState = pg_sys::ExecPrepareExprList(info.ii_Expressions, estate);
                }
                if all(info.ii_Predicate, |node| is_test_of_c_call(node)) {
                    info.ii_PredicateState = pg_sys::ExecPrepareQual(info.ii_Predicate, estate);
                }
            }
        }
    }

    /// Adds the row in the slot.
    ///
    /// # Safety
    /// The row has been written to the relation whose indexes these are.
    pub(super) unsafe fn insert(&self, slot: *mut pg_sys::TupleTableSlot, touched: Touched) {
        // SAFETY: by the contract.
        unsafe {
            compat::insert_index_tuples(self.result, slot, self.estate, touched);
            let expressions = (*self.estate).es_per_tuple_exprcontext;
            // Without indexes on expressions nothing is allocated there.
            if !expressions.is_null() && !(*(*expressions).ecxt_per_tuple_memory).isReset {
                pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
            }
        }
    }

    /// # Safety
    /// As [`Indexes::close`].
    pub(super) unsafe fn close(self) {
        // SAFETY: by the contract.
        unsafe {
            pg_sys::ExecCloseIndices(self.result);
            pg_sys::FreeExecutorState(self.estate);
        }
    }
}
