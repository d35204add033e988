#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "platform/endpoint.h"
#include "platform/result.h"
#include "protocol/engine.h"
#include "service/config.h"

namespace tensorforge::server {

/// Everything that an operator may set; the defaults are those of `--help`.
struct Config {
  std::string data_dir;
  Endpoint listen{"127.0.0.1", 7411};
  std::string port_file;          ///< empty: none
  std::string log_level{"info"};  ///< trace, debug, info, warning, error
  std::string ack{"anchor"};      ///< or "wal"
  std::uint64_t memory_limit_bytes{};
  std::uint64_t snapshot_events{1'000'000};
  bool insecure{};
  bool accept_loss{};  ///< on the command line only
  service::Config service;
  protocol::Config protocol;
};

/// What the command line asks for: to run with a configuration, or to print something and end.
struct PrintAndExit {
  std::string text;
};

/// The variable's value; nullopt: it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

/// Puts together the command line, the environment (TENSORFORGE_...) and the TOML file (`--config`): a flag beats a
/// variable, which beats the file, which beats the default.
///
/// kInvalidArgument: the message names the flag, variable or key, and says what it takes.
Result<std::variant<Config, PrintAndExit>> read_config(int argc, const char* const* argv, const Environment&);

/// The configuration as a TOML file that gives it again.
std::string format_config(const Config&);

/// "4096", "64KiB", "512 MiB", "2GiB". kInvalidArgument: it is no such size, or over 2^64 - 1.
Result<std::uint64_t> parse_size(std::string_view text);

}  // namespace tensorforge::server
