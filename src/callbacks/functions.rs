//! The C symbols that `sql/*.sql` names, each leading to a safe function.

use crate::pg::fmgr::Call;
use pgrx::pg_sys;

macro_rules! entry_points {
    ($(($symbol:ident, $info:ident) => $function:path;)*) => {$(
        /// # Safety
        /// Called by PostgreSQL's function manager alone.
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            // SAFETY: the function manager passes a valid fcinfo that outlives the call.
            $function(unsafe { Call::new(fcinfo) })
        }

        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $info() -> *const pg_sys::Pg_finfo_record {
            static V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }
    )*};
}

entry_points! {
    (audit_chain_capture, pg_finfo_audit_chain_capture) => crate::capture::trigger::on_trigger;
    (audit_chain_enable, pg_finfo_audit_chain_enable) => crate::audit::enable::enable;
    (audit_chain_disable, pg_finfo_audit_chain_disable) => crate::audit::enable::disable;
    (audit_chain_enable_schema, pg_finfo_audit_chain_enable_schema) => crate::audit::schema::enable;
    (audit_chain_disable_schema, pg_finfo_audit_chain_disable_schema) => crate::audit::schema::disable;
    (audit_chain_fork, pg_finfo_audit_chain_fork) => crate::audit::succession::fork;
    (audit_chain_resume, pg_finfo_audit_chain_resume) => crate::audit::succession::resume;
    (audit_chain_rotate, pg_finfo_audit_chain_rotate) => crate::segment::rotate::rotate;
    (audit_chain_seal, pg_finfo_audit_chain_seal) => crate::segment::seal::seal;
    (audit_chain_row_id, pg_finfo_audit_chain_row_id) => crate::segment::row_id::row;
    (audit_chain_left_row_id, pg_finfo_audit_chain_left_row_id) => crate::segment::row_id::left_row;
    (audit_chain_maintain, pg_finfo_audit_chain_maintain) => crate::maintenance::maintain;
    (audit_chain_event, pg_finfo_audit_chain_event) => crate::capture::event::event;
    (audit_chain_refuse, pg_finfo_audit_chain_refuse) => crate::guard::log::refuse;
    (audit_chain_check_insert, pg_finfo_audit_chain_check_insert) => crate::guard::log::check_insert;
    (audit_chain_on_ddl, pg_finfo_audit_chain_on_ddl) => crate::guard::ddl::on_ddl;
    (audit_chain_checkpoint, pg_finfo_audit_chain_checkpoint) => crate::publish::on_call::checkpoint;
    (audit_chain_inclusion_proof, pg_finfo_audit_chain_inclusion_proof) => crate::tree::proof::inclusion;
    (audit_chain_consistency_proof, pg_finfo_audit_chain_consistency_proof) => crate::tree::proof::consistency;
    (audit_chain_sealed, pg_finfo_audit_chain_sealed) => crate::tree::moment::sealed;
    (audit_chain_recorded, pg_finfo_audit_chain_recorded) => crate::audit::recorded::recorded;
    (audit_chain_status, pg_finfo_audit_chain_status) => crate::publish::status::status;
    (audit_chain_retention, pg_finfo_audit_chain_retention) => crate::retention::policy::retention;
    (audit_chain_prune_segment, pg_finfo_audit_chain_prune_segment) => crate::publish::prune::on_call;
    (audit_chain_finish_pruning, pg_finfo_audit_chain_finish_pruning) => crate::retention::leftover::finish;
    (audit_chain_hold, pg_finfo_audit_chain_hold) => crate::retention::hold::begin;
    (audit_chain_release, pg_finfo_audit_chain_release) => crate::retention::hold::end;
    (audit_chain_check_log, pg_finfo_audit_chain_check_log) => crate::verify::verification::check_log;
    (audit_chain_verify_and_record, pg_finfo_audit_chain_verify_and_record) =>
        crate::verify::record::verify_and_record;
    (audit_chain_verify_in_slices, pg_finfo_audit_chain_verify_in_slices) => crate::verify::record::verify_in_slices;
    (audit_chain_erase, pg_finfo_audit_chain_erase) => crate::erasure::call::row;
    (audit_chain_erase_columns, pg_finfo_audit_chain_erase_columns) => crate::erasure::call::columns;
    (audit_chain_erase_actor, pg_finfo_audit_chain_erase_actor) => crate::erasure::call::actor;
    (audit_chain_erase_entry, pg_finfo_audit_chain_erase_entry) => crate::erasure::call::entry;
    (audit_chain_is_to_erase, pg_finfo_audit_chain_is_to_erase) => crate::erasure::matching::is_to_erase;
    (audit_chain_approve_erasure, pg_finfo_audit_chain_approve_erasure) => crate::erasure::approval::approve;
    (audit_chain_finish_erasure, pg_finfo_audit_chain_finish_erasure) => crate::erasure::finish::finish;
    (audit_chain_erasure_remains, pg_finfo_audit_chain_erasure_remains) => crate::erasure::remains::remains;
    (audit_chain_erasure_register, pg_finfo_audit_chain_erasure_register) => crate::erasure::register::register;
    (audit_chain_apply_erasure_register, pg_finfo_audit_chain_apply_erasure_register) =>
        crate::erasure::register::apply;
    (audit_chain_history, pg_finfo_audit_chain_history) => crate::history::changes::of_relation;
    (audit_chain_history_of_name, pg_finfo_audit_chain_history_of_name) => crate::history::changes::of_name;
    (audit_chain_history_of_type, pg_finfo_audit_chain_history_of_type) => crate::history::changes::of_type;
    (audit_chain_as_of_time, pg_finfo_audit_chain_as_of_time) => crate::history::as_of::as_of_time;
    (audit_chain_as_of_checkpoint, pg_finfo_audit_chain_as_of_checkpoint) => crate::history::as_of::as_of_checkpoint;
    (audit_chain_as_of_text, pg_finfo_audit_chain_as_of_text) => crate::history::as_of::as_of_text;
    (audit_chain_diff_times, pg_finfo_audit_chain_diff_times) => crate::history::as_of::diff_times;
    (audit_chain_diff_checkpoints, pg_finfo_audit_chain_diff_checkpoints) => crate::history::as_of::diff_checkpoints;
    (audit_chain_diff_texts, pg_finfo_audit_chain_diff_texts) => crate::history::as_of::diff_texts;
    (audit_chain_undo, pg_finfo_audit_chain_undo) => crate::history::undo::call::undo;
    (audit_chain_restore_to_time, pg_finfo_audit_chain_restore_to_time) =>
        crate::history::undo::call::restore_to_time;
    (audit_chain_restore_to_checkpoint, pg_finfo_audit_chain_restore_to_checkpoint) =>
        crate::history::undo::call::restore_to_checkpoint;
    (audit_chain_restore_to_text, pg_finfo_audit_chain_restore_to_text) =>
        crate::history::undo::call::restore_to_text;
    (audit_chain_restore_named_to_time, pg_finfo_audit_chain_restore_named_to_time) =>
        crate::history::undo::call::restore_named_to_time;
    (audit_chain_restore_named_to_checkpoint, pg_finfo_audit_chain_restore_named_to_checkpoint) =>
        crate::history::undo::call::restore_named_to_checkpoint;
    (audit_chain_restore_named_to_text, pg_finfo_audit_chain_restore_named_to_text) =>
        crate::history::undo::call::restore_named_to_text;
    (audit_chain_check_table, pg_finfo_audit_chain_check_table) => crate::history::check::check_table;
    (audit_chain_travel_to_time, pg_finfo_audit_chain_travel_to_time) => crate::history::travel::to_time;
    (audit_chain_travel_to_checkpoint, pg_finfo_audit_chain_travel_to_checkpoint) => crate::history::travel::to_checkpoint;
    (audit_chain_travel_to_text, pg_finfo_audit_chain_travel_to_text) => crate::history::travel::to_text;
    (audit_chain_travel_end, pg_finfo_audit_chain_travel_end) => crate::history::travel::end;
    (audit_chain_past, pg_finfo_audit_chain_past) => crate::history::travel::past;
    (audit_chain_transaction, pg_finfo_audit_chain_transaction) => crate::history::transaction::transaction;
    (audit_chain_changed, pg_finfo_audit_chain_changed) => crate::history::entry::changed_columns;
    (audit_chain_by, pg_finfo_audit_chain_by) => crate::history::by::by;
    (audit_chain_check_transition, pg_finfo_audit_chain_check_transition) => super::aggregate::transition;
    (audit_chain_check_combine, pg_finfo_audit_chain_check_combine) => super::aggregate::combine;
    (audit_chain_check_serialize, pg_finfo_audit_chain_check_serialize) => super::aggregate::serialize;
    (audit_chain_check_deserialize, pg_finfo_audit_chain_check_deserialize) => super::aggregate::deserialize;
    (audit_chain_check_final, pg_finfo_audit_chain_check_final) => super::aggregate::serialize;
}
