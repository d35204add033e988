#include "crashtest/recovery.h"

#include <utility>

#include "service/start.h"

namespace tensorforge::crashtest {

Result<Recovery> open_and_recover(storage::OpenOptions options) {
  service::Start start;
  start.attach(options);
  Result<storage::OpenedDirectory> opened = storage::open_data_directory(options);
  if (!opened.ok()) return opened.status();
  Result<service::State> state = start.finish(*opened);
  if (!state.ok()) return state.status();
  return Recovery{*std::move(opened), *std::move(state)};
}

}  // namespace tensorforge::crashtest
