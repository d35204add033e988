#pragma once

#include <cstdint>
#include <span>

#include "codec/record.h"
#include "codec/reply.h"
#include "codec/request.h"

namespace tensorforge::service {

/// The answer of a command from its records (one or more, all of them): the first answer and that of every retry are
/// made here, so they are the same. Lacks the correlation id.
Reply reply_from_records(std::span<const Record> records);

/// What a command that changed nothing answers, from the state at `sequence`.
ReplyResult unchanged_result(const Command&, Sequence sequence, std::uint32_t incarnation);

}  // namespace tensorforge::service
