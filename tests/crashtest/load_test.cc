#include "crashtest/load.h"

#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "crashtest/service_process.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::crashtest {
namespace {

using namespace std::chrono_literals;

TEST(Load, GoesOnWhereItHadNothingToAskWhenTheServiceEnded) {
  const storage::TemporaryDirectory directory;
  const std::string path = directory.path().string();
  std::string address = "127.0.0.1:0";
  std::unique_ptr<Load> load;
  for (const std::uint64_t round : {1, 2, 3}) {
    ServiceProcess service =
        ServiceProcess::start(TENSORFORGED_PATH, {"--data-dir", path + "/data", "--listen", address}, path + "/errors")
            .value();
    const auto ready = service.wait_until_ready(60s);
    ASSERT_TRUE(ready);
    if (!load) {
      address = fmt::format("127.0.0.1:{}", ready->port);
      Load::Options options{address, path + "/calls", 1};
      options.begins_only_allowed = true;
      load = Load::start(options).value();
    }
    load->allow(10);
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (load->answered() < 10 * round && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(1ms);
    }
    ASSERT_EQ(load->answered(), 10 * round);
    service.signal(SIGKILL);
    EXPECT_EQ(service.wait_for_end(60s), -SIGKILL);
    std::this_thread::sleep_for(100ms);  // so that it hears of that
  }
  load->finish();
}

}  // namespace
}  // namespace tensorforge::crashtest
