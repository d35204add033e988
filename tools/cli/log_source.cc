#include "log_source.h"

#include <functional>

#include "service/config.h"
#include "service/log_reader.h"
#include "storage/data_directory.h"

namespace tensorforge::cli {
namespace {

class ServiceLog final : public LogSource {
 public:
  explicit ServiceLog(Context& context) : service_(context.service()) {}

  Reply ask(const query::ReadLog& query) override { return service_.ask(query); }
  Reply ask(const query::ReadHistory& query) override { return service_.ask(query); }
  Sequence end() override { return service_.ask_for<result::Status>(query::GetStatus{}).sequence; }
  result::LogVerified verify() override {
    const client::Answer answer = service_.client().call(query::VerifyLog{});
    if (absl::IsDataLoss(answer.status)) throw Failure{Exit::VerificationFailed, answer.status};
    if (!answer.status.ok()) throw refusal(answer.status);
    return Connection::result_as<result::LogVerified>(answer.reply);
  }

 private:
  Connection& service_;
};

Failure directory_failure(const absl::Status& status) {
  return {absl::IsDataLoss(status) ? Exit::VerificationFailed : Exit::WrongUsage, status};
}

class StoppedLog final : public LogSource {
 public:
  explicit StoppedLog(std::string data_directory) : data_directory_(std::move(data_directory)) {}

  Reply ask(const query::ReadLog& query) override { return read(query); }
  Reply ask(const query::ReadHistory& query) override { return read(query); }
  Sequence end() override { return log().durable_head().sequence; }
  result::LogVerified verify() override {
    const Result<storage::LogVerified> verified = storage::verify_data_directory(data_directory_);
    if (!verified.ok()) throw directory_failure(verified.status());
    return {verified->end.sequence, verified->end.root, verified->chunks, verified->bytes};
  }

 private:
  const storage::Log& log() {  // opened at the first use: verify() needs the directory for itself
    if (!log_) {
      Result<std::unique_ptr<storage::Log>> opened = storage::open_read_only(data_directory_);
      if (!opened.ok()) throw directory_failure(opened.status());
      log_ = *std::move(opened);
    }
    return *log_;
  }

  Reply read(const service::LogRead& what) {
    Reply reply = service::run_read(log(), what, service::Config().max_reply_bytes);
    if (absl::IsDataLoss(reply.status)) throw Failure{Exit::VerificationFailed, reply.status};
    if (!reply.status.ok()) throw refusal(reply.status);
    return reply;
  }

  std::string data_directory_;
  std::unique_ptr<storage::Log> log_;
};

}  // namespace

std::unique_ptr<LogSource> open_service_log(Context& context) { return std::make_unique<ServiceLog>(context); }

std::unique_ptr<LogSource> open_stopped_log(const std::string& data_directory) {
  return std::make_unique<StoppedLog>(data_directory);
}

void each_record(LogSource& log, Sequence first, const std::function<bool(const result::LogRecord&)>& take) {
  for (;;) {
    const Reply reply = log.ask(query::ReadLog{first, kMaxPageSize});
    const std::vector<result::LogRecord> records = Connection::result_as<result::LogRecords>(reply).records;
    if (records.empty()) return;
    for (const result::LogRecord& record : records) {
      if (!take(record)) return;
    }
    first += records.size();
  }
}

}  // namespace tensorforge::cli
