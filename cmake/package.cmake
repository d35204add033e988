# cmake --install: both programs, the public headers, and a package for find_package(tensorforge CONFIG).
include(CMakePackageConfigHelpers)
configure_package_config_file(cmake/tensorforge-config.cmake.in tensorforge-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tensorforge)
write_basic_package_version_file(tensorforge-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tensorforge-config.cmake ${PROJECT_BINARY_DIR}/tensorforge-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tensorforge)
install(TARGETS tensorforge_platform tensorforge_registry tensorforge_gpu_memory tensorforge_checkpoint
  EXPORT tensorforge FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tensorforge)
install(EXPORT tensorforge FILE tensorforge-targets.cmake NAMESPACE tensorforge::
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tensorforge)
