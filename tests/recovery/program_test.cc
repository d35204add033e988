// What scripts may rely on: flags, exit codes, the ready line, the port file.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/client.h"
#include "tests/support/daemon.h"

namespace tensorforge {
namespace {

using client::Client;
using test::Daemon;
using test::picture;
using test::TemporaryDirectory;
using testing::HasSubstr;
using testing::StartsWith;

class ProgramTest : public testing::Test {
 protected:
  std::string data() const { return (directory_.path() / "data").string(); }
  std::vector<std::string> arguments(std::vector<std::string> more = {}) const {
    std::vector<std::string> all{"--data-dir", data(), "--listen", "127.0.0.1:0"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  TemporaryDirectory directory_;
};

TEST_F(ProgramTest, SaysWhenItIsReadyAndWhere) {
  const std::string port_file = (directory_.path() / "port").string();
  Daemon daemon(arguments({"--port-file", port_file}));
  ASSERT_TRUE(daemon.ready()) << daemon.errors();
  EXPECT_EQ(daemon.ready()->events, 1u);  // the beginning of the log's first life
  EXPECT_THAT(daemon.ready()->address, StartsWith("127.0.0.1:"));
  std::uint16_t port{};
  std::ifstream(port_file) >> port;
  EXPECT_EQ(port, daemon.ready()->port);
  EXPECT_EQ(daemon.stop(), 0) << daemon.errors();
  EXPECT_FALSE(Client::connect({.server = daemon.ready()->address}).ok());
}

TEST_F(ProgramTest, StopsCleanlyAtEitherSignal) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Daemon daemon(arguments());
    ASSERT_TRUE(daemon.ready()) << daemon.errors();
    daemon.signal(signal);
    EXPECT_EQ(daemon.wait(), 0) << daemon.errors();
  }
}

TEST_F(ProgramTest, PrintsAndEnds) {
  for (const char* flag : {"--help", "--version", "--print-config"}) {
    Daemon daemon({flag});
    EXPECT_EQ(daemon.wait(), 0) << flag;
    EXPECT_NE(daemon.output(), "") << flag;
  }
}

TEST_F(ProgramTest, EndsWithOneForWrongUsage) {
  const std::string config = (directory_.path() / "config.toml").string();
  std::ofstream(config) << "colour = 'blue'\n";
  const struct {
    std::vector<std::string> arguments;
    const char* says;
  } cases[] = {
      {{}, "--data-dir"},
      {{"--data-dir", data(), "--frobnicate"}, "--frobnicate"},
      {{"--data-dir", data(), "--listen", "nowhere"}, "--listen"},
      {{"--data-dir", data(), "--listen", "0.0.0.0:0"}, "--insecure"},
      {{"--data-dir", data(), "--config", config}, "colour"},
      {{"--data-dir", data(), "--ack", "never"}, "--ack"},
      {{"--data-dir", data(), "--reserve", "much"}, "--reserve"},
  };
  for (const auto& [given, says] : cases) {
    SCOPED_TRACE(says);
    Daemon daemon(given);
    EXPECT_EQ(daemon.wait(), 1);
    EXPECT_THAT(daemon.errors(), HasSubstr(says));
  }
  EXPECT_FALSE(std::filesystem::exists(data()));
}

TEST_F(ProgramTest, AFlagBeatsAVariableBeatsTheFile) {
  const std::string config = (directory_.path() / "config.toml").string();
  std::ofstream(config) << fmt::format("data_dir = '{}'\nlisten = 'nowhere'\n", data());
  Daemon from_file({"--config", config});
  EXPECT_EQ(from_file.wait(), 1);
  Daemon from_variable({"--config", config}, {"TENSORFORGE_LISTEN=127.0.0.1:0"});
  ASSERT_TRUE(from_variable.ready()) << from_variable.errors();
  EXPECT_EQ(from_variable.stop(), 0);
  Daemon from_flag({"--config", config, "--listen", "127.0.0.1:0"}, {"TENSORFORGE_LISTEN=nowhere"});
  ASSERT_TRUE(from_flag.ready()) << from_flag.errors();
}

TEST_F(ProgramTest, EndsWithOneWhereAPortIsInUse) {
  Daemon first(arguments());
  ASSERT_TRUE(first.ready()) << first.errors();
  const std::string other = (directory_.path() / "other").string();
  Daemon second({"--data-dir", other, "--listen", first.ready()->address});
  EXPECT_EQ(second.wait(), 1);
  EXPECT_THAT(second.errors(), HasSubstr("Address already in use"));
  EXPECT_FALSE(std::filesystem::exists(other));
}

/// Overwrites `bytes` at `offset` of a file.
void patch(const std::filesystem::path& path, std::streamoff offset, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(offset);
  file << bytes;
}

TEST_F(ProgramTest, EndsWithTwoWhereTheAnchorIsGoneAndChangesNothing) {
  {
    Daemon daemon(arguments());
    ASSERT_TRUE(daemon.ready()) << daemon.errors();
    ASSERT_EQ(daemon.stop(), 0);
  }
  const std::filesystem::path head = std::filesystem::path(data()) / "HEAD";
  patch(head, 4'096 + 20, "spoiled");
  patch(head, 8'192 + 20, "spoiled");
  const auto before = picture(data());
  Daemon daemon(arguments());
  EXPECT_EQ(daemon.wait(), 2) << daemon.errors();
  EXPECT_EQ(picture(data()), before);
}

}  // namespace
}  // namespace tensorforge
