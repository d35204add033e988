#pragma once

#include <cstdarg>
#include <cstdio>
#include <iterator>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <rocksdb/env.h>

namespace tensorforge::storage {

/// Takes the place of the LOG file, which opening would otherwise create, and keeps the warnings.
class WarningsLogger final : public rocksdb::Logger {
 public:
  WarningsLogger() : Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    char text[8'192];  // with paths in it
    if (std::vsnprintf(text, sizeof text, format, arguments) < 0) return;
    const std::lock_guard lock(mutex_);
    warnings_.emplace_back(text);
  }
  void LogHeader(const char*, va_list) override {}
  /// Adds them to `to`, unless that is nullptr.
  void take(std::vector<std::string>* to) {
    const std::lock_guard lock(mutex_);
    if (to != nullptr) std::move(warnings_.begin(), warnings_.end(), std::back_inserter(*to));
    warnings_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> warnings_;
};

}  // namespace tensorforge::storage
