#pragma once

#include "platform/result.h"
#include "service/state.h"
#include "storage/data_directory.h"

namespace tensorforge::crashtest {

/// A data directory that was opened, and the state that it gives.
struct Recovery {
  storage::OpenedDirectory directory;
  service::State state;
};

/// Opens and recovers as tensorforged does: from the newest snapshot that can be taken, and the log behind it. Errors
/// as open_data_directory() and recover_from(). What service::Start attaches to `options` is set here.
Result<Recovery> open_and_recover(storage::OpenOptions options);

}  // namespace tensorforge::crashtest
