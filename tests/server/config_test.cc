#include "server/config.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::server {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

class ConfigTest : public testing::Test {
 protected:
  ~ConfigTest() override { std::filesystem::remove(path_); }

  std::string file(const std::string& content) {
    std::ofstream(path_) << content;
    return path_;
  }
  Result<std::variant<Config, PrintAndExit>> read(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "tensorforged");
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    return read_config(static_cast<int>(argv.size()), argv.data(), [this](const std::string& name) {
      const auto found = environment_.find(name);
      return found == environment_.end() ? std::nullopt : std::optional(found->second);
    });
  }
  Config config(const std::vector<std::string>& arguments) {
    const auto result = read(arguments);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? std::get<Config>(*result) : Config{};
  }
  std::string error(const std::vector<std::string>& arguments) {
    const auto result = read(arguments);
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
    return std::string(result.status().message());
  }
  std::string printed(const std::vector<std::string>& arguments) {
    const auto result = read(arguments);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? std::get<PrintAndExit>(*result).text : "";
  }

  std::map<std::string, std::string> environment_;
  const std::string path_{
      (std::filesystem::path(testing::TempDir()) /
       ("config-" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".toml"))
          .string()};
};

TEST_F(ConfigTest, HasSafeDefaults) {
  const Config made = config({"--data-dir", "/d"});
  EXPECT_EQ(made.data_dir, "/d");
  EXPECT_EQ(made.listen, (Endpoint{"127.0.0.1", 7411}));
  EXPECT_EQ(made.ack, "anchor");
  EXPECT_EQ(made.service.reserve_bytes, 512ULL << 20U);
  EXPECT_EQ(made.snapshot_events, 1'000'000u);
  EXPECT_EQ(made.memory_limit_bytes, 0u);
  EXPECT_FALSE(made.insecure);
  EXPECT_FALSE(made.accept_loss);
}

TEST_F(ConfigTest, AFlagBeatsAVariableBeatsTheFile) {
  const std::string path = file("data_dir = '/file'\nlisten = '127.0.0.1:1'\nack = 'wal'\nreserve = '1MiB'\n");
  EXPECT_EQ(config({"--config", path}).listen.port, 1);
  environment_["TENSORFORGE_LISTEN"] = "127.0.0.1:2";
  environment_["TENSORFORGE_RESERVE"] = "2 MiB";
  EXPECT_EQ(config({"--config", path}).listen.port, 2);
  const Config made = config({"--config", path, "--listen", "127.0.0.1:3"});
  EXPECT_EQ(made.listen.port, 3);
  EXPECT_EQ(made.service.reserve_bytes, 2ULL << 20U);
  EXPECT_EQ(made.ack, "wal");
  EXPECT_EQ(made.data_dir, "/file");
}

TEST_F(ConfigTest, TheFileMayBeNamedByAVariable) {
  environment_["TENSORFORGE_CONFIG"] = file("data_dir = '/file'\n");
  EXPECT_EQ(config({}).data_dir, "/file");
}

TEST_F(ConfigTest, TakesEveryKindOfValueFromTheFile) {
  const Config made = config({"--config", file("data_dir = \"/d\"\n"
                                               "insecure = true\n"
                                               "reserve = 1048576\n"
                                               "memory_limit = '2GiB'\n"
                                               "fragmentation_threshold = 1\n"
                                               "restore_bytes_per_ms = 2.5\n"
                                               "checkpoint_interval_steps = 50\n"
                                               "snapshot_events = 9\n"
                                               "max_connections = 7\n")});
  EXPECT_TRUE(made.insecure);
  EXPECT_EQ(made.service.reserve_bytes, 1ULL << 20U);
  EXPECT_EQ(made.memory_limit_bytes, 2ULL << 30U);
  EXPECT_EQ(made.service.fragmentation_threshold, 1.0);
  EXPECT_EQ(made.service.restore_bytes_per_ms, 2.5);
  EXPECT_EQ(made.service.checkpoint_interval_steps, 50u);
  EXPECT_EQ(made.snapshot_events, 9u);
  EXPECT_EQ(made.protocol.max_connections, 7u);
}

TEST_F(ConfigTest, TakesTheLimitsOfConnectionsFromTheFile) {
  const Config made = config({"--config", file("data_dir = \"/d\"\n"
                                               "rate_limit_requests = 100\n"
                                               "rate_limit_window_ms = 250\n"
                                               "max_gathered_bytes = '2MiB'\n"
                                               "max_buffered_bytes = '8MiB'\n"
                                               "frames_per_turn = 5\n"
                                               "max_frames_per_turn = 50\n")});
  EXPECT_EQ(made.protocol.rate_limit_requests, 100u);
  EXPECT_EQ(made.protocol.rate_limit_window_ms, 250u);
  EXPECT_EQ(made.protocol.max_gathered_bytes, 2u << 20U);
  EXPECT_EQ(made.protocol.max_buffered_bytes, 8u << 20U);
  EXPECT_EQ(made.protocol.frames_per_turn, 5u);
  EXPECT_EQ(made.protocol.max_frames_per_turn, 50u);
  EXPECT_EQ(config({"--data-dir", "/d"}).protocol.rate_limit_requests, 0u)
      << "nobody is limited who did not ask for it";
}

TEST_F(ConfigTest, NamesWhatIsWrongInTheFile) {
  const struct {
    const char* content;
    const char* key;
  } cases[] = {
      {"data_dri = '/d'", "data_dri"},
      {"accept_loss = true", "accept_loss"},
      {"listen = 7411", "listen"},
      {"[listen]\nport = 1", "listen"},
      {"insecure = 'yes'", "insecure"},
      {"reserve = '1 parsec'", "reserve"},
      {"max_connections = -1", "max_connections"},
      {"max_connections = 0", "max_connections"},
      {"max_frames_per_turn = 0", "max_frames_per_turn"},
      {"rate_limit_window_ms = 0", "rate_limit_window_ms"},
      {"ack = 'never'", "ack"},
      {"log_level = 'loud'", "log_level"},
      {"touch_granularity_ms = 0.5", "touch_granularity_ms"},
      {"fragmentation_threshold = inf", "fragmentation_threshold"},
      {"data_dir = ", ":1"},
  };
  for (const auto& [content, key] : cases) {
    SCOPED_TRACE(content);
    EXPECT_THAT(error({"--data-dir", "/other", "--config", file(content)}), HasSubstr(key));
  }
  EXPECT_THAT(error({"--config", "/no/such/file"}), HasSubstr("/no/such/file"));
}

TEST_F(ConfigTest, NamesTheFlagOrVariableThatIsWrong) {
  EXPECT_THAT(error({"--data-dir", "/d", "--listen", "7411"}), HasSubstr("--listen"));
  EXPECT_THAT(error({"--data-dir", "/d", "--reserve", "-1"}), HasSubstr("--reserve"));
  EXPECT_THAT(error({"--data-dir", "/d", "--nonsense"}), HasSubstr("--nonsense"));
  EXPECT_THAT(error({}), HasSubstr("--data-dir"));
  environment_["TENSORFORGE_ACK"] = "maybe";
  EXPECT_THAT(error({"--data-dir", "/d"}), AllOf(HasSubstr("TENSORFORGE_ACK"), HasSubstr("maybe")));
}

TEST_F(ConfigTest, RefusesStrangersUnlessToldTo) {
  for (const char* address : {"0.0.0.0:1", "[::]:1", "192.168.1.1:1", "example.org:1", "127.evil.org:1"}) {
    SCOPED_TRACE(address);
    EXPECT_THAT(error({"--data-dir", "/d", "--listen", address}), HasSubstr("--insecure"));
    EXPECT_TRUE(config({"--data-dir", "/d", "--listen", address, "--insecure"}).insecure);
  }
  for (const char* address : {"127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1"}) {
    SCOPED_TRACE(address);
    EXPECT_FALSE(config({"--data-dir", "/d", "--listen", address}).insecure);
  }
}

TEST_F(ConfigTest, AcceptsALossOnTheCommandLineOnly) {
  environment_["TENSORFORGE_ACCEPT_LOSS"] = "true";
  EXPECT_FALSE(config({"--data-dir", "/d"}).accept_loss);
  EXPECT_TRUE(config({"--data-dir", "/d", "--accept-loss"}).accept_loss);
}

TEST_F(ConfigTest, PrintsAFileThatGivesTheSameAgain) {
  environment_["TENSORFORGE_MAX_CONNECTIONS"] = "12";
  const std::string first = printed({"--data-dir", "/a \"strange\" place", "--reserve", "3GiB", "--print-config"});
  EXPECT_THAT(first, HasSubstr("max_connections = 12"));
  environment_.clear();
  EXPECT_EQ(printed({"--config", file(first), "--print-config"}), first);
}

TEST_F(ConfigTest, SaysWhatItIs) {
  EXPECT_THAT(printed({"--version"}), HasSubstr("tensorforged 0."));
  const std::string help = printed({"--help"});
  for (const char* flag : {"--data-dir", "--listen", "--port-file", "--config", "--log-level", "--ack", "--reserve",
                           "--memory-limit", "--insecure", "--accept-loss", "--version", "--print-config"}) {
    EXPECT_THAT(help, HasSubstr(flag));
  }
}

TEST(ParseSize, TakesBinaryUnits) {
  const struct {
    const char* text;
    std::uint64_t want;
  } cases[] = {{"0", 0},
               {"4096", 4096},
               {"10B", 10},
               {"64KiB", 65'536},
               {"512 MiB", 512ULL << 20U},
               {"2GiB", 2ULL << 30U},
               {"18446744073709551615", UINT64_MAX}};
  for (const auto& [text, want] : cases) {
    const Result<std::uint64_t> size = parse_size(text);
    ASSERT_TRUE(size.ok()) << text;
    EXPECT_EQ(*size, want) << text;
  }
  for (const char* text :
       {"", "KiB", "-1", "1.5GiB", "1KB", "1kib", "1  KiB", "18446744073709551616", "17179869184GiB"}) {
    EXPECT_EQ(parse_size(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace tensorforge::server
