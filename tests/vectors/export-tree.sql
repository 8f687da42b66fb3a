-- Exports what the checkpoints recorded, as JSON lines: each later identity {"fork": …, "forked_at": …}, each span {"span": [leaf_index, chain, first_seq, last_seq]}, each
-- checkpoint {"tree_size": …, "root": …, "note": …}; of a pruned log also each tile {"tile": [level, index], "hashes": …} and each hash that
-- no complete tile has {"pruned_leaf": leaf_index, "hash": …}. Behind the entries of export.sql it is what audit_chain_tree.py reads:
--
--     (psql -X -d DATABASE -f export.sql; psql -X -d DATABASE -f export-tree.sql) > log.jsonl
--     python3 audit_chain_tree.py --checkpoint kept.checkpoint log.jsonl

\set ON_ERROR_STOP on
\set QUIET on
\encoding UTF8
\pset format unaligned
\pset tuples_only on
\pset pager off

SELECT json_build_object('fork', log_id, 'forked_at', forked_at)
FROM audit_log_identity WHERE forked_from IS NOT NULL ORDER BY forked_at, created_at;
SELECT json_build_object('span', json_build_array(leaf_index, chain, first_seq, last_seq))
FROM audit_checkpoint_span ORDER BY leaf_index;
SELECT json_build_object('tree_size', tree_size, 'root', encode(root, 'hex'), 'note', note)
FROM audit_checkpoint_log ORDER BY tree_size;
SELECT json_build_object('tile', json_build_array(level, index), 'hashes', encode(hashes, 'hex'))
FROM audit_tile WHERE EXISTS (SELECT FROM audit_segment WHERE state = 'pruned') ORDER BY level, index;
SELECT json_build_object('pruned_leaf', leaf_index, 'hash', encode(hash, 'hex')) FROM audit_pruned_leaf ORDER BY leaf_index;
