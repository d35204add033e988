#include "server/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <sstream>
#include <type_traits>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <toml++/toml.h>

#include "platform/names.h"
#include "server/system.h"

namespace tensorforge::server {
namespace {

std::string text(const absl::Status& status) { return std::string(status.message()); }

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// ---- kinds of values: each is read from the same text, wherever that stands, and printed as TOML

enum class Kind { Text, Number, Real, Size, Flag };

absl::Status assign(std::string& target, std::string_view value) {
  target = std::string(value);
  return absl::OkStatus();
}
absl::Status assign(Endpoint& target, std::string_view value) {
  Result<Endpoint> endpoint = parse_endpoint(value);
  if (!endpoint.ok()) return endpoint.status();
  target = *std::move(endpoint);
  return absl::OkStatus();
}
absl::Status assign(bool& target, std::string_view value) {
  const bool yes = value == "true" || value == "1";
  if (!yes && value != "false" && value != "0") {
    return absl::InvalidArgumentError(fmt::format("{} is neither true nor false", names::quoted(value)));
  }
  target = yes;
  return absl::OkStatus();
}
absl::Status assign(std::uint64_t& target, std::string_view value) {
  const auto number = parse_number<std::uint64_t>(value);
  if (!number) {
    return absl::InvalidArgumentError(fmt::format("{} is no whole number of 0 to 2^64 - 1", names::quoted(value)));
  }
  target = *number;
  return absl::OkStatus();
}
absl::Status assign(double& target, std::string_view value) {
  const auto number = parse_number<double>(value);
  if (!number || !std::isfinite(*number)) {
    return absl::InvalidArgumentError(fmt::format("{} is no finite number", names::quoted(value)));
  }
  target = *number;
  return absl::OkStatus();
}
absl::Status assign_size(std::uint64_t& target, std::string_view value) {
  const Result<std::uint64_t> size = parse_size(value);
  if (size.ok()) target = *size;
  return size.status();
}

std::string toml_text(const std::string& value) {
  std::ostringstream out;
  out << toml::value<std::string>(value);
  return out.str();
}
std::string show(const std::string& value) { return toml_text(value); }
std::string show(const Endpoint& value) { return toml_text(format_endpoint(value)); }
std::string show(bool value) { return value ? "true" : "false"; }
std::string show(std::uint64_t value) { return fmt::format("{}", value); }
std::string show(double value) {
  std::ostringstream out;
  out << toml::value<double>(value);
  return out.str();
}

// ---- the settings: one line for each

struct Setting {
  std::string_view key;  // in the file; the flag has '-' for '_', the variable is TENSORFORGE_ and the key in capitals
  Kind kind{};
  bool has_flag{};
  std::string_view value_name;  // of the flag, in --help
  std::string_view help;
  std::function<absl::Status(Config&, std::string_view)> set;
  std::function<std::string(const Config&)> show;

  std::string flag() const {
    std::string name = "--" + std::string(key);
    std::replace(name.begin(), name.end(), '_', '-');
    return name;
  }
  std::string variable() const {
    std::string name = "TENSORFORGE_" + std::string(key);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
    return name;
  }
};

template <class Get>
Setting setting(std::string_view key, Get get, std::string_view help, std::string_view value_name = "") {
  using Value = std::remove_cvref_t<decltype(get(std::declval<Config&>()))>;
  Setting made;
  made.key = key;
  made.kind = std::is_same_v<Value, bool>            ? Kind::Flag
              : std::is_same_v<Value, std::uint64_t> ? Kind::Number
              : std::is_same_v<Value, double>        ? Kind::Real
                                                     : Kind::Text;
  made.has_flag = !value_name.empty() || made.kind == Kind::Flag;
  made.value_name = value_name;
  made.help = help;
  made.set = [get](Config& config, std::string_view value) { return assign(get(config), value); };
  made.show = [get](const Config& config) { return show(get(config)); };
  return made;
}

template <class Get>
Setting size_setting(std::string_view key, Get get, std::string_view help, std::string_view value_name = "") {
  Setting made = setting(key, get, help, value_name);
  made.kind = Kind::Size;
  made.set = [get](Config& config, std::string_view value) { return assign_size(get(config), value); };
  return made;
}

template <class Get>
Setting choice(std::string_view key, Get get, std::string_view help, std::string_view value_name,
               const std::vector<std::string_view>& choices) {
  Setting made = setting(key, get, help, value_name);
  made.set = [get, choices](Config& config, std::string_view value) {
    if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
      return absl::InvalidArgumentError(
          fmt::format("{} is none of {}", names::quoted(value), fmt::join(choices, ", ")));
    }
    return assign(get(config), value);
  };
  return made;
}

const std::vector<Setting>& settings() {
  static const std::vector<Setting> all = {
      setting(
          "data_dir", [](auto& c) -> auto& { return c.data_dir; }, "Where the log lies; made if it is missing or empty",
          "DIR"),
      setting(
          "listen", [](auto& c) -> auto& { return c.listen; }, "Address to serve at; port 0 picks a free one",
          "HOST:PORT"),
      setting(
          "port_file", [](auto& c) -> auto& { return c.port_file; },
          "File that gets the port once the service is ready", "FILE"),
      choice("log_level", [](auto& c) -> auto& { return c.log_level; },
             "What goes to standard error: trace, debug, info, warning or error", "LEVEL",
             {"trace", "debug", "info", "warning", "error"}),
      choice("ack", [](auto& c) -> auto& { return c.ack; },
             "When a change is answered. anchor: when it is synced and the anchor says so, so that every later loss is "
             "found out. wal: when it is synced; damage to the last changes before a crash may then pass for a write "
             "that was never acknowledged, and those are lost without a word",
             "anchor|wal", {"anchor", "wal"}),
      size_setting(
          "reserve", [](auto& c) -> auto& { return c.service.reserve_bytes; },
          "Free disk under which changes are refused", "BYTES"),
      size_setting(
          "memory_limit", [](auto& c) -> auto& { return c.memory_limit_bytes; },
          "Memory that the process may take while it folds a snapshot, which for that time takes about as much again "
          "as "
          "the state; a fold that would pass it is skipped with a warning; 0: no limit",
          "BYTES"),
      setting(
          "snapshot_events", [](auto& c) -> auto& { return c.snapshot_events; },
          "Events since the last snapshot, and at least as many as there are live entities, after which the next one "
          "is taken in the background; 0: only where `tensorforge server snapshot` asks for it",
          "N"),
      setting(
          "insecure", [](auto& c) -> auto& { return c.insecure; },
          "Serve at an address other than loopback without authentication"),

      setting(
          "touch_granularity_ms", [](auto& c) -> auto& { return c.service.touch_granularity_ms; },
          "A touch nearer than this to the recorded one makes no event"),
      setting(
          "fragmentation_threshold", [](auto& c) -> auto& { return c.service.fragmentation_threshold; },
          "Of `pool stats`: should_defragment above this ratio"),
      size_setting(
          "defragment_min_block_bytes", [](auto& c) -> auto& { return c.service.defragment_min_block_bytes; },
          "Of `pool stats`: should_defragment while the largest free block is under this"),
      setting(
          "restore_base_ms", [](auto& c) -> auto& { return c.service.restore_base_ms; },
          "Of estimated_restore_ms: the fixed part"),
      setting(
          "restore_per_checkpoint_ms", [](auto& c) -> auto& { return c.service.restore_per_checkpoint_ms; },
          "Of estimated_restore_ms: for each checkpoint of the chain"),
      setting(
          "restore_bytes_per_ms", [](auto& c) -> auto& { return c.service.restore_bytes_per_ms; },
          "Of estimated_restore_ms: the rate of reading"),
      setting(
          "checkpoint_interval_steps", [](auto& c) -> auto& { return c.service.checkpoint_interval_steps; },
          "Of `checkpoint due` without an interval"),

      setting(
          "max_connections", [](auto& c) -> auto& { return c.protocol.max_connections; }, "More are turned away"),
      setting(
          "max_requests_in_flight", [](auto& c) -> auto& { return c.protocol.max_requests_in_flight; },
          "Of one connection; it is not read from beyond them"),
      size_setting(
          "max_output_bytes", [](auto& c) -> auto& { return c.protocol.max_output_bytes; },
          "Answers of one connection that its peer does not take; it is not read from beyond them"),
      size_setting(
          "max_gathered_bytes", [](auto& c) -> auto& { return c.protocol.max_gathered_bytes; },
          "Records that wait for the disk; from a half on only who has less than an equal part of them is read from, "
          "beyond them nobody"),
      size_setting(
          "max_buffered_bytes", [](auto& c) -> auto& { return c.protocol.max_buffered_bytes; },
          "Of all connections: answers that wait and large requests that arrive; from a quarter on, who holds more "
          "than "
          "a fair share is not read from"),
      setting(
          "frames_per_turn", [](auto& c) -> auto& { return c.protocol.frames_per_turn; },
          "Requests of one connection before the others have their turn"),
      setting(
          "max_frames_per_turn", [](auto& c) -> auto& { return c.protocol.max_frames_per_turn; },
          "Requests of all connections before what waits for the disk is looked at again"),
      setting(
          "rate_limit_requests", [](auto& c) -> auto& { return c.protocol.rate_limit_requests; },
          "Of one actor, over all its connections, in any rate_limit_window_ms; more are refused; 0: no limit"),
      setting(
          "rate_limit_window_ms", [](auto& c) -> auto& { return c.protocol.rate_limit_window_ms; },
          "Of rate_limit_requests"),
      setting(
          "hello_timeout_ms", [](auto& c) -> auto& { return c.protocol.hello_timeout_ms; },
          "For a connection's first frame"),
      setting(
          "half_frame_timeout_ms", [](auto& c) -> auto& { return c.protocol.half_frame_timeout_ms; },
          "For the end of a frame that has begun"),
      setting(
          "slow_reader_timeout_ms", [](auto& c) -> auto& { return c.protocol.slow_reader_timeout_ms; },
          "For a peer that takes none of its answers"),
      setting(
          "idle_timeout_ms", [](auto& c) -> auto& { return c.protocol.idle_timeout_ms; },
          "For a connection without requests; 0: never"),
      setting(
          "shutdown_timeout_ms", [](auto& c) -> auto& { return c.protocol.shutdown_timeout_ms; },
          "For peers to take their last answers at a stop"),
  };
  return all;
}

// ---- the three sources

using Values = std::map<std::string_view, std::string>;  // by key

Result<std::string> toml_value(const toml::node& node, Kind kind) {
  if (const auto* flag = node.as_boolean(); flag != nullptr && kind == Kind::Flag) return show(flag->get());
  if (const auto* whole = node.as_integer(); whole != nullptr && kind != Kind::Text && kind != Kind::Flag) {
    return fmt::format("{}", whole->get());
  }
  if (const auto* real = node.as_floating_point(); real != nullptr && kind == Kind::Real) {
    return fmt::format("{}", real->get());
  }
  if (const auto* string = node.as_string(); string != nullptr && (kind == Kind::Text || kind == Kind::Size)) {
    return string->get();
  }
  constexpr std::array<std::string_view, 5> kWanted = {
      "a text", "a whole number", "a number", "a number of bytes or a text such as \"64 MiB\"", "true or false"};
  return absl::InvalidArgumentError(fmt::format("takes {}", kWanted[static_cast<std::size_t>(kind)]));
}

Result<Values> read_file(const std::string& path) {
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    const auto line = error.source().begin.line;
    return absl::InvalidArgumentError(line == 0 ? fmt::format("{}: {}", path, error.description())
                                                : fmt::format("{}:{}: {}", path, line, error.description()));
  }
  Values values;
  for (const auto& [key, node] : table) {
    const std::string_view name = key.str();
    const auto known =
        std::find_if(settings().begin(), settings().end(), [&](const Setting& s) { return s.key == name; });
    const auto line = node.source().begin.line;
    if (known == settings().end()) {
      return absl::InvalidArgumentError(fmt::format("{}:{}: unknown key {}; `tensorforged --print-config` shows all",
                                                    path, line, names::quoted(name)));
    }
    Result<std::string> value = toml_value(node, known->kind);
    if (!value.ok()) {
      return absl::InvalidArgumentError(fmt::format("{}:{}: {} {}", path, line, name, text(value.status())));
    }
    values[known->key] = *std::move(value);
  }
  return values;
}

absl::Status merge(Config& config, const Setting& setting, const Values& flags, const Environment& environment,
                   const Values& file, const std::string& path) {
  const auto apply = [&](const std::string& value, const std::string& where) {
    const absl::Status status = setting.set(config, value);
    return status.ok() ? status : absl::InvalidArgumentError(fmt::format("{}: {}", where, text(status)));
  };
  if (const auto flag = flags.find(setting.key); flag != flags.end()) return apply(flag->second, setting.flag());
  if (const auto variable = environment(setting.variable())) return apply(*variable, setting.variable());
  if (const auto key = file.find(setting.key); key != file.end()) {
    return apply(key->second, fmt::format("{}: {}", path, setting.key));
  }
  return absl::OkStatus();
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos);
}

absl::Status check(const Config& config) {
  if (config.data_dir.empty()) return absl::InvalidArgumentError("--data-dir is missing: where shall the log lie?");
  if (!is_loopback(config.listen.host) && !config.insecure) {
    return absl::InvalidArgumentError(
        fmt::format("--listen {}: anybody who reaches this address could change everything, since no tokens are "
                    "configured; listen at 127.0.0.1, or say --insecure",
                    format_endpoint(config.listen)));
  }
  const std::pair<std::string_view, std::uint64_t> positive[] = {
      {"max_connections", config.protocol.max_connections},
      {"max_requests_in_flight", config.protocol.max_requests_in_flight},
      {"max_output_bytes", config.protocol.max_output_bytes},
      {"max_gathered_bytes", config.protocol.max_gathered_bytes},
      {"max_buffered_bytes", config.protocol.max_buffered_bytes},
      {"frames_per_turn", config.protocol.frames_per_turn},
      {"max_frames_per_turn", config.protocol.max_frames_per_turn},
      {"rate_limit_window_ms", config.protocol.rate_limit_window_ms},
  };
  for (const auto& [key, value] : positive) {
    if (value == 0) return absl::InvalidArgumentError(fmt::format("{}: 0 would let nobody in", key));
  }
  return absl::OkStatus();
}

constexpr std::string_view kFooter =
    "Every flag but --config and --accept-loss is also a key of the configuration file (data_dir = \"...\") and a\n"
    "variable (TENSORFORGE_DATA_DIR); the file has more keys, see --print-config. A flag beats a variable, a variable\n"
    "beats the file. Sizes take KiB, MiB and GiB.\n\n"
    "Exit codes: 0 stopped cleanly; 1 wrong usage or configuration, or a directory that is not ours or is newer;\n"
    "2 the log does not verify; 3 the disk failed; 4 another process holds the data directory.\n\n"
    "Example: tensorforged --data-dir /var/lib/tensorforge --listen 127.0.0.1:7411";

}  // namespace

Result<std::uint64_t> parse_size(std::string_view input) {
  const absl::Status bad = absl::InvalidArgumentError(
      fmt::format("{} is no size, such as 1048576, 64KiB, 512MiB or 2GiB", names::quoted(input)));
  std::size_t digits = 0;
  while (digits < input.size() && input[digits] >= '0' && input[digits] <= '9') ++digits;
  const auto number = parse_number<std::uint64_t>(input.substr(0, digits));
  if (!number) return bad;
  std::string_view unit = input.substr(digits);
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  constexpr std::pair<std::string_view, unsigned> kUnits[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
  for (const auto& [name, shift] : kUnits) {
    if (unit != name) continue;
    if (*number > std::numeric_limits<std::uint64_t>::max() >> shift) return bad;
    return *number << shift;
  }
  return bad;
}

std::string format_config(const Config& config) {
  std::string out;
  for (const Setting& setting : settings()) {
    out += fmt::format("# {}\n{} = {}\n", setting.help, setting.key, setting.show(config));
  }
  return out;
}

Result<std::variant<Config, PrintAndExit>> read_config(int argc, const char* const* argv,
                                                       const Environment& environment) {
  CLI::App app("tensorforged: the durable control plane of a machine-learning platform", "tensorforged");
  app.footer(std::string(kFooter));
  app.set_version_flag("--version", fmt::format("tensorforged {}", version()));

  const Config defaults;
  std::map<std::string_view, std::string> flags;
  std::map<std::string_view, bool> switches;
  for (const Setting& setting : settings()) {
    if (!setting.has_flag) continue;
    if (setting.kind == Kind::Flag) {
      app.add_flag(setting.flag(), switches[setting.key], std::string(setting.help));
      continue;
    }
    app.add_option_function<std::string>(
           setting.flag(), [&flags, key = setting.key](const std::string& value) { flags[key] = value; },
           fmt::format("{} [{}]", setting.help, setting.show(defaults)))
        ->type_name(std::string(setting.value_name));
  }
  Config config;
  std::string path;
  bool print = false;
  app.add_option("--config", path, "TOML file")->type_name("FILE");
  app.add_flag("--accept-loss", config.accept_loss,
               "Begin anew from what verifies of a damaged log; the damaged one is kept in lost-*/");
  app.add_flag("--print-config", print, "Print the configuration that the other arguments give, as TOML, and end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return PrintAndExit{app.help()};
  } catch (const CLI::CallForVersion&) {
    return PrintAndExit{fmt::format("tensorforged {}\n", version())};
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(fmt::format("{}; see tensorforged --help", error.what()));
  }
  for (const auto& [key, on] : switches) {
    if (on) flags[key] = "true";
  }

  if (path.empty()) path = environment("TENSORFORGE_CONFIG").value_or("");
  Values file;
  if (!path.empty()) {
    Result<Values> read = read_file(path);
    if (!read.ok()) return read.status();
    file = *std::move(read);
  }
  for (const Setting& setting : settings()) {
    if (absl::Status status = merge(config, setting, flags, environment, file, path); !status.ok()) return status;
  }
  if (print) return PrintAndExit{format_config(config)};
  if (absl::Status status = check(config); !status.ok()) return status;
  return config;
}

}  // namespace tensorforge::server
