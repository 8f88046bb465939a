// The page of Swagger UI, which shows an operation several times faster if it resolves references in a small document.
"use strict";

const SCHEMA = "#/components/schemas/";

// Add to `found` the schemas that a part of a document refers to, and those to which they refer.
function addSchemas(part, schemas, found) {
  if (typeof part === "string" && part.startsWith(SCHEMA)) {
    const name = part.slice(SCHEMA.length);
    if (Object.hasOwn(schemas, name) && !Object.hasOwn(found, name)) {
      found[name] = schemas[name];
      addSchemas(schemas[name], schemas, found);
    }
  } else if (part !== null && typeof part === "object") {
    for (const inner of Object.values(part)) {
      addSchemas(inner, schemas, found);
    }
  }
}

// Return the document with only the path or the component at `place`, and with the schemas that it needs.
function reduced(document, [section, name, schema]) {
  const all = document.components.schemas;
  const paths = {};
  let schemas = {};
  if (section === "paths") {
    paths[name] = document.paths[name];
    addSchemas(paths, all, schemas);
  } else if (schema !== undefined) {
    addSchemas(SCHEMA + schema, all, schemas);
  } else if (name === "schemas") {
    schemas = all;
  }
  return { ...document, paths, components: { ...document.components, schemas } };
}

// Swagger UI resolves the references in an operation when it is opened. For that, it parses the document that it gets.
function resolvingLess({ fn: { resolveSubtree } }) {
  return {
    fn: { resolveSubtree: (document, place, options) => resolveSubtree(reduced(document, place), place, options) },
  };
}

const element = document.getElementById("swagger-ui");
SwaggerUIBundle({
  domNode: element,
  url: element.dataset.url,
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  showCommonExtensions: true,
  showExtensions: true,
  plugins: [resolvingLess],
});
