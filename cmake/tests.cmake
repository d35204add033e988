find_package(GTest REQUIRED)
include(GoogleTest)

# The test programs labelled `threads`: all that the preset tsan builds.
add_custom_target(threads_tests)

# tensorforge_test(NAME sources... LIBS targets... [LABELS labels...] [TIMEOUT seconds])
#
# One test program. Each of its tests is known to ctest as NAME.Suite.Test, so that `ctest -R NAME` runs the lot.
function(tensorforge_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "NO_MAIN" "TIMEOUT" "LIBS;LABELS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name}_tests ${arg_UNPARSED_ARGUMENTS})
  target_include_directories(${name}_tests PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name}_tests PRIVATE ${arg_LIBS} GTest::gmock tensorforge::warnings)
  if(arg_NO_MAIN)
    target_link_libraries(${name}_tests PRIVATE GTest::gtest)
  else()
    target_link_libraries(${name}_tests PRIVATE GTest::gtest_main)
  endif()
  if("threads" IN_LIST arg_LABELS)
    add_dependencies(threads_tests ${name}_tests)
  endif()
  gtest_discover_tests(${name}_tests TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST
    PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
endfunction()
