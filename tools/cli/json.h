#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "codec/record.h"
#include "codec/reply.h"

namespace tensorforge::cli {

/// Keeps the order in which the contract lists the fields.
using Json = nlohmann::ordered_json;

// Each value as one JSON object, with the contract's field names: enums by name, versions as "1.2.3", absent optionals
// left out; an infinity becomes null when it is written. Ids of the log (sessions, hashes, incarnations) are text in
// hexadecimal, as they stand in block ids and file names.
Json to_json(const registry::ModelMetadata&);
Json to_json(const registry::ValidationResult&);
Json to_json(const registry::ModelVersion&);
Json to_json(const gpu_memory::GpuDevice&);
Json to_json(const gpu_memory::MemoryBlock&);
Json to_json(const gpu_memory::Move&);
Json to_json(const checkpoint::CheckpointMeta&);
Json to_json(const checkpoint::GcPolicy&);
Json to_json(const result::PoolStats&);
Json to_json(const result::DeletedCheckpoint&);
Json to_json(const result::LogVerified&);
Json to_json(const result::Status&);

/// The fields of an event alone: event_name() names it.
Json to_json(const Event&);
/// One line of the audit log: the record's fields, its streams, its event and its note.
Json log_entry(const Record&, const std::optional<Note>&);

/// A result without sequence and request id. A list that holds one thing is that thing: what a command made, what a
/// query for one thing found.
Json to_json(const ReplyResult&);

/// One line, or with `indent` an indented document. Bytes that are not UTF-8 become U+FFFD.
std::string dump(const Json&, int indent = -1);

}  // namespace tensorforge::cli
