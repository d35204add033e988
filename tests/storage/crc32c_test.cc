#include "storage/crc32c.h"

#include <string>

#include <gtest/gtest.h>

namespace tensorforge::storage {
namespace {

TEST(Crc32c, GivesTheCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xe3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(""), 0U);
}

}  // namespace
}  // namespace tensorforge::storage
