#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <CLI/App.hpp>

#include "connection.h"
#include "output.h"
#include "parse.h"
#include "platform/log_types.h"
#include "registry/registry.h"

namespace tensorforge::cli {

/// The flags that stand with every verb.
struct GlobalOptions {
  std::string server{"127.0.0.1:7411"};
  std::string actor;
  bool json{}, json_lines{};

  Format format() const { return json_lines ? Format::JsonLines : json ? Format::Document : Format::Text; }
};

/// What a verb runs with.
/// For what takes as long as the log is.
inline constexpr std::chrono::hours kLongest{24};

class Context {
 public:
  Context(const GlobalOptions& globals, std::ostream& stream) : globals_(globals), output_(globals.format(), stream) {}

  Output& out() { return output_; }
  const std::string& server() const { return globals_.server; }
  const std::string& actor() const { return globals_.actor; }
  /// Connects at the first call.
  Connection& service();
  /// Asks for one thing and prints it.
  void show(Query query);
  /// Makes a change and prints what it did.
  void change(Command command, const ChangeOptions& options);
  /// For what is asked after this and may take long. Before the first service().
  void allow(std::chrono::seconds timeout) { request_timeout_ = timeout; }

 private:
  const GlobalOptions& globals_;
  std::chrono::milliseconds request_timeout_{30'000};
  Output output_;
  std::unique_ptr<Connection> connection_;
};

/// The parsed command line: the flags of all verbs and the verb to run.
struct Program {
  GlobalOptions globals;
  std::function<void(Context&)> action;
};

/// Declares the arguments of one verb. A text that is no such value is wrong usage, with the parser's own message.
///
/// Targets must outlive the parse: keep them in the object that the action holds.
class Verb {
 public:
  Verb(CLI::App& app, Program& program) : app_(app), program_(program) {}

  /// `parse` is one of parse.h.
  template <class T, class V>
  CLI::Option* value(const std::string& name, T& target, Result<V> (*parse)(std::string_view),
                     const std::string& help) {
    return each(
        name,
        [&target, parse](const std::string& text) {
          Result<V> parsed = parse(text);
          if (!parsed.ok()) return parsed.status();
          target = *std::move(parsed);
          return absl::OkStatus();
        },
        help);
  }
  template <class T>
  CLI::Option* text(const std::string& name, T& target, const std::string& help) {
    return value(
        name, target, +[](std::string_view text) { return Result<std::string>(text); }, help);
  }
  template <class T>
  CLI::Option* whole(const std::string& name, T& target, const std::string& help) {
    return value(name, target, parse_whole, help);
  }
  template <class T>
  CLI::Option* whole32(const std::string& name, T& target, const std::string& help) {
    return value(name, target, parse_whole32, help);
  }
  template <class T>
  CLI::Option* size(const std::string& name, T& target, const std::string& help) {
    return value(name, target, parse_size, help);
  }
  template <class T>
  CLI::Option* real(const std::string& name, T& target, const std::string& help) {
    return value(name, target, parse_real, help);
  }
  template <class T>
  CLI::Option* version(const std::string& name, T& target, const std::string& help) {
    return value(name, target, parse_model_version, help);
  }
  template <class E>
  CLI::Option* enumerator(const std::string& name, E& target, const std::string& help) {
    return value(name, target, parse_enumerator<E>, help);
  }
  CLI::Option* flag(const std::string& name, bool& target, const std::string& help);
  /// May be given many times; gathers the texts.
  CLI::Option* texts(const std::string& name, std::vector<std::string>& target, const std::string& help);
  /// May be given many times, as KEY=VALUE; a key given twice is wrong usage.
  CLI::Option* tags(const std::string& name, std::map<std::string, std::string>& target, const std::string& help);
  CLI::Option* metrics(const std::string& name, std::map<std::string, double>& target, const std::string& help);
  /// --reason and --if-sequence.
  void change(ChangeOptions& target);
  /// --limit.
  void limit(std::optional<std::uint64_t>& target);

  void run(std::function<void(Context&)> action);

 private:
  /// Hands `take` each text that is given; it refuses with the message to show.
  CLI::Option* each(const std::string& name, std::function<absl::Status(const std::string&)> take,
                    const std::string& help);

  CLI::App& app_;
  Program& program_;
};

/// A noun (or the verb that groups two others) of the command line.
class Noun {
 public:
  Noun(CLI::App& parent, Program& program, const std::string& name, const std::string& description,
       const std::string& example);

  Verb verb(const std::string& name, const std::string& description, const std::string& example);
  Noun noun(const std::string& name, const std::string& description, const std::string& example);

 private:
  CLI::App& app_;
  Program& program_;
};

// One file each.
void add_model(CLI::App& app, Program& program);
void add_pool(CLI::App& app, Program& program);
void add_checkpoint(CLI::App& app, Program& program);
void add_log(CLI::App& app, Program& program);
void add_server(CLI::App& app, Program& program);
void add_bench(CLI::App& app, Program& program);
void add_crashtest(CLI::App& app, Program& program);

// Verbs long enough for a file of their own.
void add_model_import(Noun& model);
void add_pool_replay(Noun& pool);

/// Prints a list page by page: `rows` is the member of the result that holds them.
template <class R, class Q, class T>
void print_list(Context& context, Q query, std::vector<T> R::*rows, const std::optional<std::uint64_t>& limit,
                std::vector<Column> columns) {
  List list(context.out(), std::move(columns));
  std::uint64_t left = limit.value_or(std::numeric_limits<std::uint64_t>::max());
  each_page(context.service(), std::move(query), limit, [&](Reply reply) {
    const R page = Connection::result_as<R>(std::move(reply));
    for (const T& row : page.*rows) {
      if (left == 0) break;
      --left;
      list.add(to_json(row));
    }
    list.flush();
    return left > 0;
  });
  list.finish();
}

/// Reads the whole of `path`, `-` being standard input. Wrong usage where it cannot be read.
std::string read_input(const std::string& path);

}  // namespace tensorforge::cli
