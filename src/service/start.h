#pragma once

#include <optional>

#include "platform/result.h"
#include "service/recover.h"
#include "service/state.h"
#include "storage/data_directory.h"

namespace tensorforge::service {

/// The state that a data directory gives, made while it is opened: of the newest snapshot that the log verifies behind,
/// or of nothing, and of the log from there, which is replayed while it is checked.
///
/// Threads: one; it outlives the opening.
class Start {
 public:
  /// Before the opening.
  void attach(storage::OpenOptions& open);
  /// After an opening that succeeded, once. What was not replayed meanwhile is now. Errors as recover_from().
  Result<State> finish(const storage::OpenedDirectory&, const ReplayOptions& = {});

 private:
  std::optional<State> loaded_;
  std::optional<ReplayBeside> replay_;
};

}  // namespace tensorforge::service
