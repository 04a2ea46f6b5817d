# Linux: the same test programs again, over a translation of kqueue and, with NETIO_TEST_MATRIX, by
# other compilers, with sanitizers, for other processors and for Windows, as far as tools are found.
# What is not found is an entry that is skipped and says what is missing.
#
# These variants are built by commands of their own, because one CMake build has one C compiler.

# netio_variant(NAME
#     CC command           the compiler; the entry is skipped if there is none
#     NEEDS command...     programs that running it needs
#     PACKAGES text        what to install for it
#     RUN kind             see tools/run-under.sh
#     FLAGS ... LINK ...   for every compilation, for linking; tests are not optimised, netio is
#     SOURCES ...          further sources for every program
#     IMPL file            implements netio, instead of support/netio_impl.c
#     BACKENDS ...         default: select poll epoll
#     LOOPS ...            those for the tests of loops; default: epoll
#     ONLY name... or EXCEPT name...    which tests; default: all
#     WRAP                 also those that are linked with --wrap
#     TLS name...          tests of TLS, too, if there is a library for it; "all": every one
#     PROPERTIES ...)      of the entries
function(netio_variant variant)
    cmake_parse_arguments(V "WRAP" "CC;PACKAGES;RUN;IMPL"
        "NEEDS;FLAGS;LINK;SOURCES;BACKENDS;LOOPS;ONLY;EXCEPT;TLS;PROPERTIES" ${ARGN})
    foreach(command IN LISTS V_CC V_NEEDS)
        find_program(NETIO_HAVE_${command} ${command})
        if(NOT NETIO_HAVE_${command})
            netio_add_script(${variant} ${variant} 10 sh ${tools}/skip.sh
                             "there is no ${command} here (${V_PACKAGES})")
            return()
        endif()
    endforeach()
    if(NOT V_BACKENDS)
        set(V_BACKENDS select poll epoll)
    endif()
    if(NOT V_LOOPS)
        set(V_LOOPS epoll)
    endif()
    set(impl ${support}/netio_impl.c)
    if(V_IMPL)
        set(impl ${V_IMPL})
    endif()

    set(dir ${CMAKE_CURRENT_BINARY_DIR}/${variant})
    file(MAKE_DIRECTORY ${dir})
    set(compile ${V_CC} -g ${V_FLAGS} -I${PROJECT_SOURCE_DIR} -I${support}
                -I${CMAKE_CURRENT_SOURCE_DIR})
    set(headers ${PROJECT_SOURCE_DIR}/netio.h ${support}/test.h)

    # Objects that all programs share: ${object_X} for support/X.c.
    function(object name source)
        get_filename_component(file ${source} NAME)
        set(std -std=gnu99)
        if(file MATCHES "\\.cpp$")
            set(std -std=c++11)
        endif()
        add_custom_command(OUTPUT ${dir}/${name}.o COMMAND ${compile} ${std} ${ARGN} -c ${source}
                                                           -o ${dir}/${name}.o
                           DEPENDS ${source} ${headers} COMMENT "${variant}: ${file}" VERBATIM)
    endfunction()
    object(test ${support}/test.c -O0)
    object(impl ${impl})
    object(impl_resolver ${impl} -DNETIO_TEST_RESOLVER=1 -O0) # of one or two programs
    object(engine ${support}/engine.c -O0)
    set(shared ${dir}/test.o ${dir}/engine.o)
    foreach(source IN LISTS V_SOURCES)
        get_filename_component(name ${source} NAME_WE)
        object(${name} ${source})
        list(APPEND shared ${dir}/${name}.o)
    endforeach()

    set(names ${V_ONLY})
    if(NOT names)
        set(names ${test_names})
    endif()
    if(NOT TARGET netio::tls)
        set(V_TLS "")
    elseif(V_TLS STREQUAL "all")
        set(V_TLS ${tls_names})
    endif()
    if(V_TLS)
        set(tls_objects ${dir}/tls_impl.o ${dir}/tls_test.o)
        set(headers ${headers} ${PROJECT_SOURCE_DIR}/netio_tls.h
                    ${CMAKE_CURRENT_SOURCE_DIR}/tls/tls_test.h)
        object(tls_impl ${CMAKE_CURRENT_SOURCE_DIR}/tls/tls_impl.c -DNETIO_TLS_OPENSSL -O0)
        object(tls_test ${CMAKE_CURRENT_SOURCE_DIR}/tls/tls_test.c -DNETIO_TLS_OPENSSL -O0)
    endif()
    set(programs "")
    foreach(name IN LISTS names V_TLS)
        if(NOT test_${name}_source OR name IN_LIST V_EXCEPT)
            continue()
        endif()
        if(test_${name}_wrap AND NOT V_WRAP)
            continue()
        endif()
        set(source ${test_${name}_source})
        set(program ${dir}/test_${name}.exe)
        set(objects ${shared} ${dir}/${test_${name}_impl}.o)
        set(libraries "")
        if(name IN_LIST V_TLS)
            set(objects ${shared} ${tls_objects})
            set(libraries -DNETIO_TLS_OPENSSL -lssl -lcrypto)
        endif()
        add_custom_command(OUTPUT ${program}
            COMMAND ${compile} -std=gnu99 -O0 ${source} ${objects} -o ${program} ${libraries} ${V_LINK}
                    ${test_${name}_wrap}
            DEPENDS ${source} ${objects} ${headers} COMMENT "${variant}: test_${name}" VERBATIM)
        list(APPEND programs ${program})
        set(backends ${V_BACKENDS})
        if(test_${name}_loops)
            set(backends ${V_LOOPS})
        endif()
        netio_add_runs(${variant} ${name} "${backends}" sh ${tools}/run-under.sh ${V_RUN} ${program})
        if(V_PROPERTIES)
            set_tests_properties(${entries} PROPERTIES ${V_PROPERTIES})
        endif()
        if(name IN_LIST V_TLS)
            set_tests_properties(${entries} PROPERTIES FIXTURES_REQUIRED certs
                                 ENVIRONMENT NETIO_TEST_CERTS=${certs})
        endif()
    endforeach()
    add_custom_target(variant-${variant} ALL DEPENDS ${programs})
endfunction()

# --- kqueue: its backend over a translation onto epoll, in both ways that the shim can be built -----

if(EXISTS ${support}/kqueue/kqueue.c)
    file(STRINGS ${support}/kqueue/kqueue.c lines REGEX "^// .*-Wl,--wrap=")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${support}/kqueue/kqueue.c)
    string(REGEX MATCHALL "-Wl,[^ ]+" shim_wrap "${lines}")
    set(shim_tests ${shim_names})
    foreach(name IN LISTS test_names)
        if(test_${name}_backends)
            list(APPEND shim_tests ${name})
        endif()
    endforeach()
    foreach(keep 0 1)
        if(keep) # the loop sees no difference
            foreach(name IN LISTS test_names)
                if(test_${name}_loops)
                    list(REMOVE_ITEM shim_tests ${name})
                endif()
            endforeach()
        endif()
        netio_variant(kqueue-${keep} CC ${CMAKE_C_COMPILER} RUN native ONLY ${shim_tests}
            FLAGS -O1 -DNETIO__HAS_KQUEUE=1 -DNETIO_TEST_KQUEUE_KEEP_ERROR=${keep} -I${support}/kqueue
            LINK -pthread ${shim_wrap} SOURCES ${support}/kqueue/kqueue.c BACKENDS kqueue
            LOOPS kqueue)
    endforeach()
endif()

if(NOT NETIO_TEST_MATRIX)
    return()
endif()

# Where a compiler or processor is in question a part of the tests of loops tells as much as all.
set(other_loops conn_calls conn_close conn_time dial listener lookup loops relay signal soak watch)
# Those of one thread, which tell nothing new where threads are in question, and those of
# examples/common/, which have no code for one system or another.
set(alone addr conn_frame error filter frame fuzz_addr fuzz_frame fuzz_http fuzz_websocket http proxy queue websocket)
set(commons calls channels fuzz_channels fuzz_http_client fuzz_resp fuzz_stun http_client link resp stun)

# --- compilers ------------------------------------------------------------------------------------

netio_variant(clang CC clang RUN native PACKAGES "clang" LINK -pthread EXCEPT ${other_loops} ${commons}
    TLS tls_engine tls_verify FLAGS -O2 ${netio_warnings} -Werror)
netio_variant(musl CC musl-gcc RUN native PACKAGES "musl-tools" FLAGS -O1 LINK -static
    EXCEPT ${other_loops} ${commons})
netio_variant(tcc CC tcc RUN native PACKAGES "tcc" LINK -pthread ONLY addr error time socket poller)
# The implementation as C++, used from C.
netio_variant(cxx CC gcc RUN native NEEDS g++ PACKAGES "g++" LINK -pthread -lstdc++
    EXCEPT ${other_loops} ${commons}
    IMPL ${compile}/netio_impl.cpp)

# --- tools that look on ---------------------------------------------------------------------------

netio_variant(asan WRAP CC gcc RUN sanitizer PACKAGES "gcc" LINK -pthread LOOPS epoll memory-rough TLS all
    FLAGS -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all)
netio_variant(tsan CC gcc RUN sanitizer PACKAGES "gcc" LINK -pthread FLAGS -O1 -fsanitize=thread
    EXCEPT ${commons} ${alone} TLS tls_socket)
netio_variant(valgrind CC gcc RUN valgrind NEEDS valgrind PACKAGES "gcc valgrind" LINK -pthread
    FLAGS -O1 ONLY addr error resolve socket option poller unix datagram PROPERTIES TIMEOUT 240)

# --- other processors -----------------------------------------------------------------------------

netio_variant(i686 CC i686-linux-gnu-gcc RUN native LINK -static -pthread FLAGS -O1
    EXCEPT ${other_loops} ${commons}
    PACKAGES "gcc-i686-linux-gnu libc6-dev-i386-cross")
# Byte order for s390x, 32 bits and char without a sign for arm; aarch64 is much like this machine.
set(s390x_tests EXCEPT ${other_loops})
set(arm_tests EXCEPT ${other_loops} ${commons})
set(aarch64_tests ONLY addr batch conn error frame loop poller socket stream threads time unix)
foreach(cpu s390x-linux-gnu arm-linux-gnueabihf aarch64-linux-gnu)
    string(REGEX REPLACE "-.*" "" qemu ${cpu})
    netio_variant(${qemu} CC ${cpu}-gcc RUN qemu-${qemu} NEEDS qemu-${qemu} LINK -static -pthread
        FLAGS -O1 PACKAGES "gcc-${cpu} and its libc6-dev-...-cross, qemu-user"
        ${${qemu}_tests}
        PROPERTIES TIMEOUT 240)
endforeach()

# --- Windows --------------------------------------------------------------------------------------

# All Windows sockets live in one server process: one test at a time, or their timing would suffer.
netio_variant(wine CC x86_64-w64-mingw32-gcc RUN wine NEEDS wine wineserver FLAGS -O1
    LINK -static -lws2_32 BACKENDS select wsapoll afd LOOPS wsapoll PACKAGES "gcc-mingw-w64-x86-64 wine wine64"
    PROPERTIES FIXTURES_REQUIRED wine RESOURCE_LOCK wine TIMEOUT 240
               ENVIRONMENT "NETIO_WINEPREFIX=${CMAKE_CURRENT_BINARY_DIR}/wine-prefix")
if(TARGET variant-wine)
    set(prefix NETIO_WINEPREFIX=${CMAKE_CURRENT_BINARY_DIR}/wine-prefix)
    set(under_wine FIXTURES_REQUIRED wine RESOURCE_LOCK wine)
    netio_add_script(wine.start wine 120 sh ${tools}/wine-server.sh start)
    netio_add_script(wine.stop wine 60 sh ${tools}/wine-server.sh stop)
    set_tests_properties(wine.start PROPERTIES FIXTURES_SETUP wine ENVIRONMENT ${prefix})
    set_tests_properties(wine.stop PROPERTIES FIXTURES_CLEANUP wine ENVIRONMENT ${prefix})
    netio_add_script(consumer.mingw consumer 300 sh ${compile}/consumer.sh mingw ${PROJECT_VERSION}
                     ${CMAKE_COMMAND} ${cc})
    set_tests_properties(consumer.mingw PROPERTIES ${under_wine} ENVIRONMENT ${prefix})

    # Programs of this system against the examples and the peers' driver under Wine.
    set(dir ${CMAKE_CURRENT_BINARY_DIR}/wine)
    file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.c
                                      ${PROJECT_SOURCE_DIR}/examples/apps/*.c)
    set(programs "")
    # Each has the implementation inside; here it is compiled once for all, and what the programs
    # see of Windows through it comes from the command line. (udp_chat asks for rand_s first.)
    set(program x86_64-w64-mingw32-gcc -O0 -DNETIO_TLS_NONE= -I${PROJECT_SOURCE_DIR})
    add_custom_command(OUTPUT ${dir}/whole.o
        COMMAND ${program} -DNETIO_IMPLEMENTATION -c ${compile}/tls.c -o ${dir}/whole.o
        DEPENDS ${PROJECT_SOURCE_DIR}/netio.h ${PROJECT_SOURCE_DIR}/netio_tls.h
        COMMENT "wine: netio for examples" VERBATIM)
    list(APPEND program -DNETIO__IMPLEMENTED -DNETIO__TLS_IMPLEMENTED -include winsock2.h
                        -include ws2tcpip.h -include windows.h -D_CRT_RAND_S=)
    foreach(source IN LISTS sources ITEMS ${CMAKE_CURRENT_SOURCE_DIR}/peers/driver.c)
        get_filename_component(name ${source} NAME_WE)
        add_custom_command(OUTPUT ${dir}/${name}.exe
            COMMAND ${program} ${source} ${dir}/whole.o -o ${dir}/${name}.exe -static -lws2_32
            DEPENDS ${source} ${dir}/whole.o COMMENT "wine: ${name}" VERBATIM)
        list(APPEND programs ${dir}/${name}.exe)
    endforeach()
    add_custom_target(wine-programs ALL DEPENDS ${programs})
    file(GLOB scripts CONFIGURE_DEPENDS peers/test_*.py examples/test_*.py)
    foreach(script IN LISTS scripts)
        file(STRINGS ${script} native REGEX "^# NATIVE")
        if(native)
            continue()
        endif()
        set(group wine-examples)
        if(script MATCHES "/peers/")
            set(group wine-peers)
        endif()
        netio_add_file(${group} ${script} "NETIO_SOURCE=${PROJECT_SOURCE_DIR};NETIO_BUILD=${dir};\
NETIO_DRIVER=${tools}/wine.sh ${dir}/driver.exe;NETIO_EMULATOR=${tools}/wine.sh;${prefix}")
        set_tests_properties(${entry} PROPERTIES ${under_wine})
    endforeach()
endif()

# --- fuzzing --------------------------------------------------------------------------------------

find_program(NETIO_HAVE_clang clang)
set(fuzz_impl ${CMAKE_CURRENT_BINARY_DIR}/fuzz_impl.o) # the same in all of them
if(NETIO_HAVE_clang)
    add_custom_command(OUTPUT ${fuzz_impl}
        COMMAND clang -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
                -DNETIO_IMPLEMENTATION -I${PROJECT_SOURCE_DIR} -c ${compile}/header.c
                -o ${fuzz_impl}
        DEPENDS ${PROJECT_SOURCE_DIR}/netio.h COMMENT "netio for libFuzzer" VERBATIM)
    add_custom_target(fuzz-impl ALL DEPENDS ${fuzz_impl})
endif()
file(GLOB sources CONFIGURE_DEPENDS fuzz/fuzz_*.c)
foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    string(REPLACE "fuzz_" "fuzz." entry ${name})
    netio_add_script(${entry} fuzz 120 sh ${tools}/fuzz.sh ${source} 10 ${fuzz_impl})
endforeach()

if(TARGET netio::tls)
    netio_add_script(fuzz.tls fuzz 300 sh ${CMAKE_CURRENT_SOURCE_DIR}/tls/fuzz.sh 10)
    set_tests_properties(fuzz.tls PROPERTIES FIXTURES_REQUIRED certs
                         ENVIRONMENT NETIO_TEST_CERTS=${certs})
endif()

# --- the benchmark works --------------------------------------------------------------------------

if(NETIO_BUILD_BENCH)
    netio_add_script(bench.smoke bench 300 sh ${PROJECT_SOURCE_DIR}/bench/smoke.sh --short)
    set_tests_properties(bench.smoke PROPERTIES PROCESSORS 2) # its clients and servers need their cores
endif()

# --- compile only ---------------------------------------------------------------------------------

netio_add_compile(strict-clang strict clang clang++ c99 c11 c17 gnu17)
netio_add_compile(strict-musl strict musl-gcc - c99 gnu17)
netio_add_compile(order-musl order musl-gcc)
netio_add_compile(windows windows)
foreach(target x86_64-macos aarch64-macos x86_64-freebsd x86_64-netbsd x86_64-openbsd
               aarch64-windows-gnu x86_64-linux-gnu.2.17)
    netio_add_compile(zig-${target} zig ${target})
    set_tests_properties(compile.zig-${target} PROPERTIES
        ENVIRONMENT "NETIO_ZIG=$ENV{NETIO_ZIG};ZIG_GLOBAL_CACHE_DIR=${CMAKE_CURRENT_BINARY_DIR}/zig-cache")
endforeach()
foreach(tool clang-tidy cppcheck)
    netio_add_script(analysis.${tool} analysis 300 sh ${compile}/analysis.sh ${tool})
endforeach()
