#pragma once

#include <memory>
#include <string>

#include "connection.h"
#include "program.h"

namespace tensorforge::cli {

/// Where the log verbs read from: the service, or a data directory that no service holds.
///
/// What cannot be read throws Failure: damage is VerificationFailed, a directory in use or of another program
/// WrongUsage.
class LogSource {
 public:
  virtual ~LogSource() = default;

  virtual Reply ask(const query::ReadLog&) = 0;
  virtual Reply ask(const query::ReadHistory&) = 0;
  /// Sequence of the last record.
  virtual Sequence end() = 0;
  /// Checks everything that opening the log would, in full.
  virtual result::LogVerified verify() = 0;
};

std::unique_ptr<LogSource> open_service_log(Context& context);
std::unique_ptr<LogSource> open_stopped_log(const std::string& data_directory);

/// Hands `take` the records from `first` on, as long as it answers true.
void each_record(LogSource& log, Sequence first, const std::function<bool(const result::LogRecord&)>& take);

}  // namespace tensorforge::cli
