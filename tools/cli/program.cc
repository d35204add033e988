#include "program.h"

#include <fstream>
#include <iostream>
#include <iterator>

#include <fmt/format.h>

#include "parse.h"
#include "platform/names.h"

namespace tensorforge::cli {
namespace {

template <class V>
absl::Status put_entry(std::map<std::string, V>& target, std::string key, V value) {
  const auto [entry, added] = target.try_emplace(std::move(key), std::move(value));
  if (added) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{} is given twice", names::quoted(entry->first)));
}

}  // namespace

Connection& Context::service() {
  if (!connection_) connection_ = std::make_unique<Connection>(globals_.server, globals_.actor, request_timeout_);
  return *connection_;
}

void Context::show(Query query) { output_.object(to_json(service().ask(std::move(query)).result)); }

void Context::change(Command command, const ChangeOptions& options) {
  output_.object(to_json(service().change(std::move(command), options)));
}

CLI::Option* Verb::each(const std::string& name, std::function<absl::Status(const std::string&)> take,
                        const std::string& help) {
  CLI::Option* option = app_.add_option_function<std::vector<std::string>>(
      name,
      [name, take = std::move(take)](const std::vector<std::string>& given) {
        for (const std::string& text : given) {
          const absl::Status status = take(text);
          if (!status.ok()) throw CLI::ValidationError(name, std::string(status.message()));
        }
      },
      help);
  // A list in CLI11's terms, so that it hands over an empty text as it is; but one that takes one text at a time.
  return option->expected(1)->allow_extra_args(false)->type_name("");
}

CLI::Option* Verb::flag(const std::string& name, bool& target, const std::string& help) {
  return app_.add_flag(name, target, help);
}

CLI::Option* Verb::texts(const std::string& name, std::vector<std::string>& target, const std::string& help) {
  return app_.add_option(name, target, help)->allow_extra_args(false)->type_name("");
}

CLI::Option* Verb::tags(const std::string& name, std::map<std::string, std::string>& target, const std::string& help) {
  const auto take = [&target](const std::string& text) {
    Result<std::pair<std::string, std::string>> pair = parse_pair(text);
    if (!pair.ok()) return pair.status();
    return put_entry(target, std::move(pair->first), std::move(pair->second));
  };
  return each(name, take, help)->expected(1, CLI::detail::expected_max_vector_size);
}

CLI::Option* Verb::metrics(const std::string& name, std::map<std::string, double>& target, const std::string& help) {
  const auto take = [&target](const std::string& text) {
    Result<std::pair<std::string, std::string>> pair = parse_pair(text);
    if (!pair.ok()) return pair.status();
    const Result<double> number = parse_real(pair->second);
    if (!number.ok()) return number.status();
    return put_entry(target, std::move(pair->first), *number);
  };
  return each(name, take, help)->expected(1, CLI::detail::expected_max_vector_size);
}

void Verb::change(ChangeOptions& target) {
  text("--reason", target.reason, "Why: kept with the change in the audit log");
  whole("--if-sequence", target.if_sequence, "Only if nothing that this changes was changed after sequence N");
}

void Verb::limit(std::optional<std::uint64_t>& target) { whole("--limit", target, "At most N rows"); }

void Verb::run(std::function<void(Context&)> action) {
  app_.callback([&program = program_, action = std::move(action)] { program.action = action; });
}

Noun::Noun(CLI::App& parent, Program& program, const std::string& name, const std::string& description,
           const std::string& example)
    : app_(*parent.add_subcommand(name, description)), program_(program) {
  app_.footer("Example:\n  " + example);
  app_.require_subcommand(1)->fallthrough();
}

Verb Noun::verb(const std::string& name, const std::string& description, const std::string& example) {
  CLI::App& app = *app_.add_subcommand(name, description);
  app.footer("Example:\n  " + example +
             "\n\nWith every verb: --server HOST:PORT, --json, --jsonl; see tensorforge --help");
  app.fallthrough();
  return Verb(app, program_);
}

Noun Noun::noun(const std::string& name, const std::string& description, const std::string& example) {
  return Noun(app_, program_, name, description, example);
}

std::string read_input(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) {
    throw wrong_usage(fmt::format("cannot read the file {}; - reads standard input", names::quoted(path)));
  }
  return text;
}

}  // namespace tensorforge::cli
