package io.github.birthmark.testing;

import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.ParameterContext;
import org.junit.jupiter.api.extension.ParameterResolver;

/** Resolves parameters of type BirthmarkServer: one server for all tests of the JVM, reset for each test. */
public final class BirthmarkExtension implements ParameterResolver {
    private static final ExtensionContext.Namespace NAMESPACE =
        ExtensionContext.Namespace.create(BirthmarkExtension.class);

    @Override
    public boolean supportsParameter(ParameterContext parameter, ExtensionContext context) {
        return parameter.getParameter().getType() == BirthmarkServer.class;
    }

    @Override
    public BirthmarkServer resolveParameter(ParameterContext parameter, ExtensionContext context) {
        // A closeable value of the root store is closed after the last test.
        ExtensionContext.Store all = context.getRoot().getStore(NAMESPACE);
        BirthmarkServer server =
            all.getOrComputeIfAbsent(BirthmarkServer.class, kind -> BirthmarkServer.start(), BirthmarkServer.class);
        // A test and its @BeforeEach methods share one reset.
        context.getStore(NAMESPACE).getOrComputeIfAbsent("reset", key -> {
            server.reset();
            return true;
        });
        return server;
    }
}
