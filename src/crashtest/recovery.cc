#include "crashtest/recovery.h"

#include <optional>
#include <utility>

#include "service/fold.h"
#include "service/recover.h"

namespace tensorforge::crashtest {

Result<Recovery> open_and_recover(storage::OpenOptions options) {
  std::optional<service::State> loaded;
  options.load_snapshot = service::keep_snapshot(loaded);
  Result<storage::OpenedDirectory> opened = storage::open_data_directory(options);
  if (!opened.ok()) return opened.status();
  service::State from;
  if (opened->snapshot.sequence() > 0) from = *std::move(loaded);
  Result<service::State> state = service::recover_from(std::move(from), *opened->journal);
  if (!state.ok()) return state.status();
  return Recovery{*std::move(opened), *std::move(state)};
}

}  // namespace tensorforge::crashtest
